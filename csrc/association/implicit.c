/* implicit.c: the gradient at a fixed point (implicit.h).
 *
 * The Jacobian of the update T at x is J = beta K^T P' K with P' = diag(w) - w w^T / sum w and w = p^(2 - alpha) on the
 * support (softmax: w = p, sparsemax: w = 1). With rows b_i = sqrt(beta w_i) (k_i - mean), mean = sum w_i k_i / sum w,
 * it is J = B^T B. So 1 - J is the Hessian of the energy, which is positive definite at a strict minimum. The system is
 * solved in the state or in the support, whichever is smaller: (1 - B^T B)^-1 = 1 + B^T (1 - B B^T)^-1 B.
 *
 * Beyond alpha = 2 the least p has the largest w, which may leave the range. So w is taken relative to it. The mean is
 * taken relative to the key of the least p, so that equal keys have b = 0 exactly. */
#include "association/implicit.h"
#include "runtime/blas.h"
#include "runtime/workspace.h"
#include <math.h>
#include <string.h>

void BLAS(dpotrf_)(const char *half, const int *n, double *a, const int *lda, int *info, size_t);
void BLAS(dpotrs_)(const char *half, const int *n, const int *columns, const double *a, const int *lda, double *b,
                   const int *ldb, int *info, size_t);
void BLAS(dpocon_)(const char *half, const int *n, const double *a, const int *lda, const double *norm, double *rcond,
                   double *work, int *iwork, int *info, size_t);

static const double LEAST_CONDITION = 1e-10;

/* Solves a x = y for x, in place of y; a (m, m) is symmetric and destroyed. Returns 0 if a is not positive definite, or
 * nearly not. */
static int solve(int m, double *a, double *y, double *work, int *iwork) {
    const int one = 1;
    int info;
    double norm = 0, condition = 0;
    for (int r = 0; r < m; r++) {
        double sum = 0;
        for (int c = 0; c < m; c++) sum += fabs(a[(size_t)r * (size_t)m + (size_t)c]);
        norm = fmax(norm, sum);
    }
    SH_BLAS_CALL(dpotrf_, "L", &m, a, &m, &info, 1);
    if (info) return 0;
    SH_BLAS_CALL(dpocon_, "L", &m, a, &m, &norm, &condition, work, iwork, &info, 1);
    if (info || !(condition > LEAST_CONDITION)) return 0;
    SH_BLAS_CALL(dpotrs_, "L", &m, &one, a, &m, y, &m, &info, 1);
    return info == 0;
}

/* The arrays of the system of one query, with k rows in its support; m is the smaller of k and e. */
typedef struct {
    int64_t k, m;
    double *x;               /* (e) dx, then l */
    double *b, *y;           /* (k, e), (k) */
    double *mean, *a, *work; /* (e), (m, m), (3 m) */
    int *iwork;              /* (m) */
} linear_system;

/* Lays the arrays out on a block, or only counts its bytes where that is NULL. Returns the bytes. */
static size_t lay_out(int64_t e, void *block, linear_system *l) {
    sh_workspace w = {block, 0};
    l->x = sh_take(&w, e, sizeof *l->x);
    l->b = sh_take(&w, l->k * e, sizeof *l->b);
    l->y = sh_take(&w, l->k, sizeof *l->y);
    l->mean = sh_take(&w, e, sizeof *l->mean);
    l->a = sh_take(&w, l->m * l->m, sizeof *l->a);
    l->work = sh_take(&w, 3 * l->m, sizeof *l->work);
    l->iwork = sh_take(&w, l->m, sizeof *l->iwork);
    return w.used;
}

/* Solves the system of one query for l, in place of dx. Returns 0 if it is singular. */
static int solve_one(const sh_tape *t, double beta, const sh_stored_rows *s, const char *p, const int32_t *list,
                     int64_t n, int64_t lane, const linear_system *l) {
    const int64_t e = t->e, m = l->m, support = l->k;
    double *b = l->b, *mean = l->mean, *a = l->a, *x = l->x, *y = l->y;
    const double slope = t->map == &t->lanes->map[SH_SOFTMAX]     ? 1
                         : t->map == &t->lanes->map[SH_SPARSEMAX] ? 0
                                                                  : 2 - t->parameter;
    double total = 0, least = INFINITY; /* weight, of row least_row of the support */
    int64_t least_row = 0;
    for (int64_t i = 0, row = 0; i < n; i++) {
        const double weight = sh_get(t, p, i * t->width + lane);
        if (!(weight > 0)) continue;
        if (weight < least) {
            least = weight;
            least_row = row;
        }
        const sh_matrix *keys = &s->side[SH_KEYS];
        const char *key = sh_at(keys->data, t, sh_row_of(t, s, list, i, lane) * keys->ld);
        for (int64_t c = 0; c < e; c++) b[row * e + c] = sh_get(t, key, c);
        y[row++] = weight;
    }
    memset(mean, 0, (size_t)e * sizeof *mean);
    for (int64_t row = 0; row < support; row++) {
        y[row] = pow(y[row] / least, slope);
        total += y[row];
        for (int64_t c = 0; c < e; c++) mean[c] += y[row] * (b[row * e + c] - b[least_row * e + c]);
    }
    for (int64_t c = 0; c < e; c++) mean[c] = mean[c] / total + b[least_row * e + c];
    const double factor = pow(least, slope / 2);
    for (int64_t row = 0; row < support; row++)
        for (int64_t c = 0; c < e; c++) {
            const double off = b[row * e + c] - mean[c];
            b[row * e + c] = off == 0 ? 0 : sqrt(beta * y[row]) * factor * off;
        }
    /* 1 - B B^T or 1 - B^T B */
    const int in_support = support < e;
    sh_gemm_f64(!in_support, in_support, m, m, in_support ? e : support, -1, b, e, b, e, 0, a, m);
    for (int64_t i = 0; i < m; i++) a[i * m + i] += 1;
    if (!in_support) return solve((int)m, a, x, l->work, l->iwork);
    SH_BLAS_CALL(cblas_dgemv, CblasRowMajor, CblasNoTrans, (int)support, (int)e, 1, b, (int)e, x, 1, 0, y, 1);
    if (!solve((int)m, a, y, l->work, l->iwork)) return 0;
    SH_BLAS_CALL(cblas_dgemv, CblasRowMajor, CblasTrans, (int)support, (int)e, 1, b, (int)e, y, 1, 1, x, 1);
    return 1;
}

sh_status sh_solve_fixed_points(sh_context *context, const sh_tape *t, const sh_tile_queries *q,
                                const sh_stored_rows *s, const char *p, const int32_t *list, int64_t n, const char *dx,
                                char *l) {
    sh_status status = SH_OK;
    for (int64_t lane = 0; lane < t->width && status == SH_OK; lane++) {
        linear_system system = {0};
        for (int64_t i = 0; i < n; i++) system.k += sh_get(t, p, i * t->width + lane) > 0;
        system.m = sh_min(system.k, t->e);
        if (q->head[lane] < 0 || system.k == 0) {
            for (int64_t c = 0; c < t->e; c++) sh_put(t, l, c * t->width + lane, 0);
            continue;
        }
        void *block = sh_allocate(context, (int64_t)lay_out(t->e, NULL, &system), 1);
        if (!block) return SH_NO_MEMORY;
        lay_out(t->e, block, &system);
        for (int64_t c = 0; c < t->e; c++) system.x[c] = sh_get(t, dx, c * t->width + lane);
        if (solve_one(t, t->a.beta[q->head[lane]], s, p, list, n, lane, &system))
            for (int64_t c = 0; c < t->e; c++) sh_put(t, l, c * t->width + lane, system.x[c]);
        else
            status = sh_fail(context, SH_SINGULAR, "queries", q->number[lane] / t->a.heads);
        sh_release(context, block);
    }
    return status;
}
