/* radii.c: bounds for SH_GOAL_RADIUS: which patterns may be the rival that limits the ball around a pattern from which
 * queries are retrieved as it.
 *
 * The gap to pattern nu is the pattern's own score less that of nu. With t = gap - required gap and c_nu = |xi_nu|^2 +
 * 2 b_nu the norm offset, D^2 = c_nu - c + 2 gap, so the quotient of nu is t / sqrt(2 t + q) with
 * q = c_nu - c + 2 (required gap) + slack. It is below a radius r that other patterns give only if
 *
 *     r >= 0:   t < r^2 + r sqrt(r^2 + q)            r < 0:   t < r^2 - |r| sqrt(r^2 + q) = -q / (1 + sqrt(1 + q/r^2))
 *
 * (a root of t^2 - 2 r^2 t - r^2 q); never if there is no root, or if q < 0 for r < 0. So only a pattern of a high
 * enough score can be a rival: the least such score follows from its own norm offset, or from the worst one, which is
 * the largest for r >= 0 and the least with q >= 0 for r < 0. Such least scores filter candidates as thresholds do
 * elsewhere, with the same slacks; the candidates that remain are scored canonically, and their quotients computed.
 */
#include "retrieval/job.h"
#include <float.h>

/* Computes t / sqrt(D^2 + slack), not below its exact value if scores are off by at most `error`. */
static double quotient(const sh_job *job, int64_t query, sh_candidate c, double error) {
    const sh_radius_search *r = job->radius_search;
    double gap = r->self_score[query] - c.score, t = gap + error - r->required_gap[query];
    double square =
        sh_norm_offset(job, c.position) - r->norm_offset[r->self[query]] + 2 * (t < 0 ? gap + error : gap - error);
    return t / sqrt(fmax(square, 0) + r->slack + DBL_MIN);
}

double sh_radius_bound(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double slack) {
    double radius = INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (!sh_is_self(job, query, c[i].position)) radius = fmin(radius, quotient(job, query, c[i], slack));
    return radius;
}

double sh_rival_min_score_at(const sh_job *job, int64_t query, double radius, double norm_offset) {
    const sh_radius_search *r = job->radius_search;
    if (isinf(radius)) return -INFINITY;
    double self = r->self_score[query], gap = r->required_gap[query], self_offset = r->norm_offset[r->self[query]];
    double square = radius * radius, q = norm_offset - self_offset + 2 * gap + r->slack, t;
    /* more than the sums here and canonical scores lose by rounding, on the safe side of each root */
    double unit = ((double)job->memory->patterns.d + 1024) * 0x1p-50;
    double tiny = unit * (fabs(self) + fabs(gap) + fabs(norm_offset) + fabs(self_offset) + r->slack);
    if (radius >= 0) {
        double root = square + q + tiny + unit * square;
        if (root < 0) return INFINITY;
        t = square + radius * sqrt(root);
    } else {
        if (q + tiny < 0) return INFINITY;
        q = fmax(q - tiny, 0);
        t = -q / (1 + sqrt(1 + q / radius / radius));
    }
    return self - gap - t - tiny - unit * fabs(t);
}

double sh_rival_min_score(const sh_job *job, int64_t query, double radius) {
    const sh_radius_search *r = job->radius_search;
    assert(r->min_offset <= r->max_offset);
    if (radius >= 0) return sh_rival_min_score_at(job, query, radius, r->max_offset);
    double zero = r->norm_offset[r->self[query]] - 2 * r->required_gap[query] - r->slack; /* the offset where q = 0 */
    return sh_rival_min_score_at(job, query, radius, fmax(r->min_offset, zero));
}

void sh_store_rival(sh_job *job, int64_t query, const sh_candidate *c, int64_t n) {
    if (!job->out.rival) return;
    sh_candidate least = {INFINITY, -1};
    for (int64_t i = 0; i < n; i++) {
        if (sh_is_self(job, query, c[i].position)) continue;
        double r = quotient(job, query, c[i], 0);
        if (r < least.score) least = (sh_candidate){r, sh_position_of(job->memory, c[i].position)};
    }
    job->out.rival[query] = least;
}
