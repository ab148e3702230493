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
static double quotient(const sh_balls *b, int64_t query, sh_candidate c, double e) {
    double lead = b->score[query] - c.score, t = lead + e - b->need[query];
    double square = b->lift[c.position] - b->lift[b->own[query]] + 2 * (t < 0 ? lead + e : lead - e);
    return t / sqrt(fmax(square, 0) + b->slack + DBL_MIN);
}

double sh_ball_radius(const sh_job *job, int64_t query, const sh_candidate *c, int64_t n, double slack) {
    double radius = INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (c[i].position != job->balls->own[query]) radius = fmin(radius, quotient(job->balls, query, c[i], slack));
    return radius;
}

double sh_ball_floor_at(const sh_job *job, int64_t query, double radius, double lift) {
    const sh_balls *b = job->balls;
    if (isinf(radius)) return -INFINITY;
    double own = b->score[query], need = b->need[query], own_lift = b->lift[b->own[query]], square = radius * radius, t;
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

double sh_ball_floor(const sh_job *job, int64_t query, double radius) {
    const sh_balls *b = job->balls;
    if (radius >= 0) return sh_ball_floor_at(job, query, radius, b->most);
    double zero = b->lift[b->own[query]] - 2 * b->need[query] - b->slack; /* the lift where q = 0 */
    return sh_ball_floor_at(job, query, radius, fmax(b->least, zero));
}

void sh_ball_finish(sh_job *job, int64_t query, const sh_candidate *c, int64_t n) {
    if (!job->rival) return;
    sh_candidate least = {INFINITY, -1};
    for (int64_t i = 0; i < n; i++) {
        if (c[i].position == job->balls->own[query]) continue;
        double r = quotient(job->balls, query, c[i], 0);
        if (r < least.score) least = (sh_candidate){r, c[i].position};
    }
    job->rival[query] = least;
}
