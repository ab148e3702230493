/* dense.c: linear maps, layer normalisation, their gradients, and AdamW (sparsehopfield_layers.h).
 *
 * Work is cut by the shapes alone, so results are the same bits for any number of threads; what is too small to be
 * worth waking one is done at once. */
#include "kernels/kernels.h"
#include "kernels/lanes.h"
#include "runtime/runtime.h"
#include "sparsehopfield_layers.h"
#include <math.h>
#include <string.h>

enum { ROWS = 256, COLUMNS = 128, OUTPUTS = 64, NUMBERS = 1 << 15 };

typedef struct {
    const sh_kernels *k;
    const sh_lanes *lanes;
    int64_t n, e, o, block, parts, rows;
    double eps;
    const char *x, *weight, *bias, *grad;
    char *y, *dx, *dweight, *dbias, *rstd;
    char *parameter, *first, *second;
    double share[2], keep, rate, root;
} job;

static char *at(const job *j, const void *p, int64_t i) { return (char *)p + (size_t)i * j->lanes->size; }

static job begin(sh_type type, int64_t n, int64_t e, int64_t o) {
    return (job){.k = sh_kernels_of(type), .lanes = sh_lanes_for(type, INT64_MAX), .n = n, .e = e, .o = o};
}

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
    job j = begin(type, n, e, o);
    j.x = x;
    j.weight = weight;
    j.bias = bias;
    j.y = y;
    return sh_each(context, sh_ceil_div(n, ROWS), 0, (double)n * (double)e * (double)o, linear_rows, &j);
}

static sh_status linear_back_rows(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch;
    const job *j = user;
    const int64_t first = item * ROWS, rows = sh_min(ROWS, j->n - first);
    return sh_product(context, j->k->gemm_nn, j->k->size, 0, rows, j->e, j->o, at(j, j->grad, first * j->o), j->o,
                      j->weight, j->e, 0, at(j, j->dx, first * j->e), j->e);
}

/* Gradients of some of the outputs' weights, from some of the rows. */
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

/* The parts of the gradients, summed in order: weights into y, biases into dx. */
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
    job j = begin(type, n, e, o);
    const double work = (double)n * (double)e * (double)o;
    j.x = x;
    j.weight = weight;
    j.grad = grad;
    j.dx = dx;
    if (n == 0) { /* sums of nothing */
        if (dweight) memset(dweight, 0, (size_t)(o * e) * j.lanes->size);
        if (dbias) memset(dbias, 0, (size_t)o * j.lanes->size);
        return SH_OK;
    }
    sh_status status = dx ? sh_each(context, sh_ceil_div(n, ROWS), 0, work, linear_back_rows, &j) : SH_OK;
    if (status != SH_OK || !(dweight || dbias)) return status;
    /* many rows are cut into parts, whose gradients cost little to sum; else the outputs are cut */
    j.parts = sh_max(sh_min(sh_min(n / ROWS, 16), n * (o + e) / sh_max(4 * o * e, 1)), 1);
    j.rows = sh_ceil_div(n, j.parts);
    j.parts = sh_ceil_div(n, j.rows);
    j.block = j.parts > 4 ? o : sh_max(32, sh_ceil_div(sh_ceil_div(o, 4), 16) * 16);
    j.dweight = dweight;
    j.dbias = dbias;
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

sh_status sh_normalize(sh_context *context, sh_type type, int64_t n, int64_t e, double eps, const void *x, void *xhat,
                       void *rstd) {
    job j = begin(type, n, e, 0);
    j.eps = eps;
    j.x = x;
    j.y = xhat;
    j.rstd = rstd;
    j.block = sh_max(NUMBERS / e / 16 * 16, 16); /* whole vectors of short rows */
    return sh_each(context, sh_ceil_div(n, j.block), 0, 8 * (double)n * (double)e, normalize_rows, &j);
}

sh_status sh_normalize_backward(sh_context *context, sh_type type, int64_t n, int64_t e, const void *xhat,
                                const void *rstd, const void *grad, void *dx) {
    job j = begin(type, n, e, 0);
    j.x = xhat;
    j.rstd = (char *)rstd;
    j.grad = grad;
    j.dx = dx;
    j.block = sh_max(NUMBERS / e / 16 * 16, 16);
    return sh_each(context, sh_ceil_div(n, j.block), 0, 8 * (double)n * (double)e, normalize_rows, &j);
}

typedef struct {
    const sh_lanes *lanes;
    int64_t e, o;
    const char *weight, *bias, *gain, *shift;
    char *folded, *moved;
} folding;

static sh_status fold_rows(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const folding *f = user;
    const int64_t first = item * OUTPUTS;
    const size_t at = (size_t)first * f->lanes->size, row = (size_t)f->e * at;
    f->lanes->fold(f->weight + row, f->bias ? f->bias + at : NULL, f->gain, f->shift, sh_min(OUTPUTS, f->o - first),
                   f->e, f->folded + row, f->moved + at);
    return SH_OK;
}

sh_status sh_fold(sh_context *context, sh_type type, int64_t e, int64_t o, const void *weight, const void *bias,
                  const void *gain, const void *shift, void *folded, void *moved) {
    folding f = {sh_lanes_for(type, INT64_MAX), e, o, weight, bias, gain, shift, folded, moved};
    return sh_each(context, sh_ceil_div(o, OUTPUTS), 0, 16 * (double)e * (double)o, fold_rows, &f);
}

typedef struct {
    const sh_lanes *lanes;
    int64_t e, o;
    const char *dfolded, *dmoved, *weight, *gain, *shift;
    char *dweight, *dgain, *dshift;
} unfolding;

static sh_status unfold_columns(void *user, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    const unfolding *u = user;
    const size_t at = (size_t)(item * COLUMNS) * u->lanes->size;
    u->lanes->unfold(u->dfolded + at, u->dmoved, u->weight + at, u->gain + at, u->shift + at, u->o,
                     sh_min(COLUMNS, u->e - item * COLUMNS), u->e, u->dweight + at, u->dgain + at, u->dshift + at);
    return SH_OK;
}

sh_status sh_unfold(sh_context *context, sh_type type, int64_t e, int64_t o, const void *dfolded, const void *dmoved,
                    const void *weight, const void *gain, const void *shift, void *dweight, void *dgain, void *dshift) {
    unfolding u = {sh_lanes_for(type, INT64_MAX), e, o, dfolded, dmoved, weight, gain, shift, dweight, dgain, dshift};
    return sh_each(context, sh_ceil_div(e, COLUMNS), 0, 16 * (double)e * (double)o, unfold_columns, &u);
}

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
    job j = begin(type, n, 1, 1);
    j.parameter = parameter;
    j.grad = grad;
    j.first = first;
    j.second = second;
    j.share[0] = 1 - o.beta1;
    j.share[1] = 1 - o.beta2;
    j.keep = 1 - o.learning_rate * o.weight_decay;
    j.rate = o.learning_rate / (1 - pow(o.beta1, (double)step));
    j.root = 1 / sqrt(1 - pow(o.beta2, (double)step));
    j.eps = o.eps;
    return sh_each(context, sh_ceil_div(n, NUMBERS), 0, 40 * (double)n, adamw_block, &j);
}
