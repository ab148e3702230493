/* radii.c: which patterns may bound the ball around a pattern that goes to it, by their scores.
 *
 * With l the lead over nu, t = l - need and c_nu = |xi_nu|^2 + 2 b_nu the lift, D^2 = c_nu - c + 2 l, so the quotient of
 * nu is t / sqrt(2 t + q) with q = c_nu - c + 2 need + slack. It is below a radius r that others leave only if
 *
 *     r >= 0:   t < r^2 + r sqrt(r^2 + q)            r < 0:   t < r^2 - |r| sqrt(r^2 + q) = -q / (1 + sqrt(1 + q/r^2))
 *
 * (a root of t^2 - 2 r^2 t - r^2 q), and where there is none, or q < 0 for r < 0, not at all. So a pattern that is no
 * such rival has a score below a floor: that of its own lift, or that of the worst, the largest for r >= 0 and the least
 * with q >= 0 for r < 0. Floors filter as thresholds do elsewhere, with the same slacks; what is left is scored
 * canonically, and divided.
 */
#include "retrieval/job.h"
#include <float.h>
#include <math.h>

/* t / sqrt(D^2 + slack), not below it if scores are off by e */
static double quotient(const sh_radius_search *b, int64_t query, sh_candidate c, double e) {
    double lead = b->self_score[query] - c.score, t = lead + e - b->required_gap[query];
    double square = b->norm_offset[c.position] - b->norm_offset[b->self[query]] + 2 * (t < 0 ? lead + e : lead - e);
    return t / sqrt(fmax(square, 0) + b->slack + DBL_MIN);
}

double sh_radius_bound(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double slack) {
    double radius = INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (c[i].position != job->radius_search->self[query])
            radius = fmin(radius, quotient(job->radius_search, query, c[i], slack));
    return radius;
}

double sh_rival_min_score_at(const sh_job *job, int64_t query, double radius, double lift) {
    const sh_radius_search *b = job->radius_search;
    if (isinf(radius)) return -INFINITY;
    double own = b->self_score[query], need = b->required_gap[query], own_lift = b->norm_offset[b->self[query]],
           square = radius * radius, t;
    double q = lift - own_lift + 2 * need + b->slack;
    /* more than the sums here and canonical scores lose by rounding, on the safe side of each root */
    double unit = ((double)job->memory->patterns.d + 1024) * 0x1p-50;
    double tiny = unit * (fabs(own) + fabs(need) + fabs(lift) + fabs(own_lift) + b->slack);
    if (radius >= 0) {
        double root = square + q + tiny + unit * square;
        if (root < 0) return INFINITY;
        t = square + radius * sqrt(root);
    } else {
        if (q + tiny < 0) return INFINITY;
        q = fmax(q - tiny, 0);
        t = -q / (1 + sqrt(1 + q / radius / radius));
    }
    return own - need - t - tiny - unit * fabs(t);
}

double sh_rival_min_score(const sh_job *job, int64_t query, double radius) {
    const sh_radius_search *b = job->radius_search;
    if (radius >= 0) return sh_rival_min_score_at(job, query, radius, b->max_offset);
    double zero = b->norm_offset[b->self[query]] - 2 * b->required_gap[query] - b->slack; /* the lift where q = 0 */
    return sh_rival_min_score_at(job, query, radius, fmax(b->min_offset, zero));
}

void sh_store_rival(sh_job *job, int64_t query, const sh_candidate *c, int64_t n) {
    if (!job->out.rival) return;
    sh_candidate least = {INFINITY, -1};
    for (int64_t i = 0; i < n; i++) {
        if (c[i].position == job->radius_search->self[query]) continue;
        double r = quotient(job->radius_search, query, c[i], 0);
        if (r < least.score) least = (sh_candidate){r, c[i].position};
    }
    job->out.rival[query] = least;
}
