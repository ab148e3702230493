/* dense.c: linear maps, layer normalisation, their gradients, and AdamW (sparsehopfield_layers.h).
 *
 * Work is cut into items by the shapes alone, so results are the same bits for any number of threads. What takes less
 * time than to wake a thread is done by the caller (sh_each). */
#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "runtime/runtime.h"
#include "sparsehopfield_layers.h"
#include <math.h>
#include <string.h>

/* The share of an item of work: rows, columns or outputs of a folded map, or numbers. */
enum { ROWS = 256, COLUMNS = 128, OUTPUTS = 64, NUMBERS = 1 << 15 };

typedef struct {
    const sh_kernels *k;
    const sh_lanes *lanes;
    int64_t n, e, o;     /* rows, numbers of a row, outputs */
    int64_t block;       /* outputs or rows of an item */
    int64_t parts, rows; /* parts that the rows are cut into, rows of a part */
    const char *x, *weight, *bias, *gain, *shift, *grad, *dmoved;
    char *y, *dx, *dweight, *dbias, *dgain, *dshift, *moved, *rstd;
    double eps;
    char *parameter, *first, *second; /* AdamW, whose steps these constants make (kernels/lanes.h) */
    double share[2], keep, rate, root;
} job;

/* Makes a job of a function's type, n and members. */
#define JOB(...) {.k = sh_kernels_of(type), .lanes = sh_lanes_for(type, INT64_MAX), .n = n, __VA_ARGS__}

/* Returns the address of number i of an array. */
static char *at(const job *j, const void *p, int64_t i) { return (char *)p + (size_t)i * j->lanes->size; }

/* Computes some rows of y. */
static sh_status linear_rows(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch;
    const job *j = user;
    const int64_t first = item * ROWS, rows = sh_min(ROWS, j->n - first);
    char *y = at(j, j->y, first * j->o);
    for (int64_t i = 0; j->bias && i < rows; i++) j->lanes->copy(j->bias, 0, NULL, 1, j->o, at(j, y, i * j->o));
    return sh_product(context, j->k->gemm_nt, j->k->size, 0, rows, j->o, j->e, at(j, j->x, first * j->e), j->e,
                      j->weight, j->e, j->bias != NULL, y, j->o);
}

sh_status sh_linear(sh_context *context, sh_type type, int64_t n, int64_t e, int64_t o, const void *x,
                    const void *weight, const void *bias, void *y) {
    job j = JOB(.e = e, .o = o, .x = x, .weight = weight, .bias = bias, .y = y);
    return sh_each(context, sh_ceil_div(n, ROWS), 0, (double)n * (double)e * (double)o, linear_rows, &j);
}

/* Computes some rows of dx. */
static sh_status linear_back_rows(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch;
    const job *j = user;
    const int64_t first = item * ROWS, rows = sh_min(ROWS, j->n - first);
    return sh_product(context, j->k->gemm_nn, j->k->size, 0, rows, j->e, j->o, at(j, j->grad, first * j->o), j->o,
                      j->weight, j->e, 0, at(j, j->dx, first * j->e), j->e);
}

/* Computes the gradients of the weights and biases of some outputs, from one part of the rows. */
static sh_status linear_back_outputs(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch;
    const job *j = user;
    const int64_t part = item % j->parts, o = item / j->parts * j->block, outputs = sh_min(j->block, j->o - o);
    const int64_t first = part * j->rows, rows = sh_min(j->rows, j->n - first);
    const char *grad = at(j, j->grad, first * j->o + o);
    if (j->dbias) j->lanes->sum_rows(grad, j->o, rows, outputs, at(j, j->dbias, part * j->o + o));
    if (!j->dweight) return SH_OK;
    return sh_product(context, j->k->gemm_tn, j->k->size, 1, outputs, j->e, rows, grad, j->o, at(j, j->x, first * j->e),
                      j->e, 0, at(j, j->dweight, (part * j->o + o) * j->e), j->e);
}

/* Sums the gradients of all parts in order: some weights into y, or the biases into dx. */
static sh_status add_parts(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const job *j = user;
    const int64_t weights = j->dweight ? j->o * j->e : 0, first = item * NUMBERS;
    if (item < sh_ceil_div(weights, NUMBERS))
        j->lanes->sum_rows(at(j, j->dweight, first), weights, j->parts, sh_min(NUMBERS, weights - first),
                           at(j, j->y, first));
    else if (j->dbias)
        j->lanes->sum_rows(j->dbias, j->o, j->parts, j->o, j->dx);
    return SH_OK;
}

sh_status sh_linear_backward(sh_context *context, sh_type type, int64_t n, int64_t e, int64_t o, const void *x,
                             const void *weight, const void *grad, void *dx, void *dweight, void *dbias) {
    job j = JOB(.e = e, .o = o, .x = x, .weight = weight, .grad = grad, .dx = dx, .dweight = dweight, .dbias = dbias);
    const double work = (double)n * (double)e * (double)o;
    if (n == 0) {
        if (dweight) memset(dweight, 0, (size_t)(o * e) * j.lanes->size);
        if (dbias) memset(dbias, 0, (size_t)o * j.lanes->size);
        return SH_OK;
    }
    sh_status status = dx ? sh_each(context, sh_ceil_div(n, ROWS), 0, work, linear_back_rows, &j) : SH_OK;
    if (status != SH_OK || !(dweight || dbias)) return status;
    /* many rows are cut into parts, as their gradients cost little to sum; otherwise the outputs are cut */
    j.parts = sh_max(sh_min(sh_min(n / ROWS, 16), n * (o + e) / sh_max(4 * o * e, 1)), 1);
    j.rows = sh_ceil_div(n, j.parts);
    j.parts = sh_ceil_div(n, j.rows);
    j.block = j.parts > 4 ? o : sh_max(32, sh_ceil_div(sh_ceil_div(o, 4), 16) * 16);
    char *weights = NULL, *biases = NULL;
    if (j.parts > 1) {
        if (dweight) j.dweight = weights = sh_allocate(context, j.parts * o * e, j.lanes->size);
        if (dbias) j.dbias = biases = sh_allocate(context, j.parts * o, j.lanes->size);
        if ((dweight && !weights) || (dbias && !biases)) status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    }
    if (status == SH_OK) status = sh_each(context, j.parts * sh_ceil_div(o, j.block), 0, work, linear_back_outputs, &j);
    if (status == SH_OK && j.parts > 1) {
        j.y = dweight;
        j.dx = dbias;
        status = sh_each(context, (dweight ? sh_ceil_div(o * e, NUMBERS) : 0) + 1, 0, (double)(j.parts * o * e),
                         add_parts, &j);
    }
    sh_release(context, weights);
    sh_release(context, biases);
    return status;
}

/* Normalises some rows, or passes their gradient back. */
static sh_status normalize_rows(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const job *j = user;
    const int64_t first = item * j->block, rows = sh_min(j->block, j->n - first);
    if (j->grad)
        j->lanes->normalize_back(at(j, j->x, first * j->e), at(j, j->rstd, first), at(j, j->grad, first * j->e), rows,
                                 j->e, at(j, j->dx, first * j->e));
    else
        j->lanes->normalize(at(j, j->x, first * j->e), rows, j->e, j->eps, at(j, j->y, first * j->e),
                            at(j, j->rstd, first));
    return SH_OK;
}

/* Returns how many rows of e numbers an item normalises: whole vectors of short rows. */
static int64_t normalized_rows(int64_t e) { return sh_max(NUMBERS / e / 16 * 16, 16); }

sh_status sh_normalize(sh_context *context, sh_type type, int64_t n, int64_t e, double eps, const void *x, void *xhat,
                       void *rstd) {
    job j = JOB(.e = e, .eps = eps, .x = x, .y = xhat, .rstd = rstd, .block = normalized_rows(e));
    return sh_each(context, sh_ceil_div(n, j.block), 0, 8 * (double)n * (double)e, normalize_rows, &j);
}

sh_status sh_normalize_backward(sh_context *context, sh_type type, int64_t n, int64_t e, const void *xhat,
                                const void *rstd, const void *grad, void *dx) {
    job j = JOB(.e = e, .x = xhat, .rstd = (char *)rstd, .grad = grad, .dx = dx, .block = normalized_rows(e));
    return sh_each(context, sh_ceil_div(n, j.block), 0, 8 * (double)n * (double)e, normalize_rows, &j);
}

/* Folds some outputs. */
static sh_status fold_rows(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const job *j = user;
    const int64_t first = item * OUTPUTS;
    j->lanes->fold(at(j, j->weight, first * j->e), j->bias ? at(j, j->bias, first) : NULL, j->gain, j->shift,
                   sh_min(OUTPUTS, j->n - first), j->e, at(j, j->y, first * j->e), at(j, j->moved, first));
    return SH_OK;
}

sh_status sh_fold(sh_context *context, sh_type type, int64_t e, int64_t n, const void *weight, const void *bias,
                  const void *gain, const void *shift, void *folded, void *moved) {
    job j = JOB(.e = e, .weight = weight, .bias = bias, .gain = gain, .shift = shift, .y = folded, .moved = moved);
    return sh_each(context, sh_ceil_div(n, OUTPUTS), 0, 16 * (double)e * (double)n, fold_rows, &j);
}

/* Computes the gradients of some columns from those of a folded map. */
static sh_status unfold_columns(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const job *j = user;
    const int64_t c = item * COLUMNS;
    j->lanes->unfold(at(j, j->grad, c), j->dmoved, at(j, j->weight, c), at(j, j->gain, c), at(j, j->shift, c), j->n,
                     sh_min(COLUMNS, j->e - c), j->e, at(j, j->dweight, c), at(j, j->dgain, c), at(j, j->dshift, c));
    return SH_OK;
}

sh_status sh_unfold(sh_context *context, sh_type type, int64_t e, int64_t n, const void *dfolded, const void *dmoved,
                    const void *weight, const void *gain, const void *shift, void *dweight, void *dgain, void *dshift) {
    job j = JOB(.e = e, .grad = dfolded, .dmoved = dmoved, .weight = weight, .gain = gain, .shift = shift,
                .dweight = dweight, .dgain = dgain, .dshift = dshift);
    return sh_each(context, sh_ceil_div(e, COLUMNS), 0, 16 * (double)e * (double)n, unfold_columns, &j);
}

/* Makes a step of AdamW for some numbers. */
static sh_status adamw_block(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const job *j = user;
    const int64_t first = item * NUMBERS;
    j->lanes->adamw(at(j, j->parameter, first), at(j, j->grad, first), at(j, j->first, first), at(j, j->second, first),
                    sh_min(NUMBERS, j->n - first), j->share[0], j->share[1], j->keep, j->rate, j->root, j->eps);
    return SH_OK;
}

sh_status sh_adamw(sh_context *context, sh_type type, int64_t n, void *parameter, const void *grad, void *first,
                   void *second, int64_t step, sh_adamw_options o) {
    job j =
        JOB(.parameter = parameter, .grad = grad, .first = first, .second = second, .share = {1 - o.beta1, 1 - o.beta2},
            .keep = 1 - o.learning_rate * o.weight_decay, .rate = o.learning_rate / (1 - pow(o.beta1, (double)step)),
            .root = 1 / sqrt(1 - pow(o.beta2, (double)step)), .eps = o.eps);
    return sh_each(context, sh_ceil_div(n, NUMBERS), 0, 40 * (double)n, adamw_block, &j);
}
