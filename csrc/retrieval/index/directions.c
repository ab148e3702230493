/* retrieval/index/directions.c: orthonormal rows along the leading principal directions of sampled patterns, by LAPACK.
 *
 * Bounds hold for any orthonormal rows (bounds.c); they are tight for these. So exactness depends only on how far the
 * rows are from orthonormal, and that is measured.
 */
#include "retrieval/index/index.h"
#include "runtime/blas.h"
#include <math.h>
#include <string.h>

void BLAS(dsyevd_)(const char *job, const char *triangle, const int *n, double *a, const int *lda, double *values,
                   double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);

typedef struct {
    const double *sample; /* (n, d) S */
    int64_t n, d, size;
    int by_features;        /* whether the Gram matrix is S^T S, of d rows, or S S^T, of n */
    int lwork, liwork;      /* as LAPACK wants them */
    double *gram;           /* (size, size) then its eigenvectors, one a row */
    double *values, *work;  /* (size) ascending eigenvalues; (lwork) */
    int *iwork;             /* (liwork) */
    double *rows, *product; /* (wanted, d), (wanted, wanted): scratch */
} directions;

static size_t lay_out(directions *g, int64_t wanted, void *memory) {
    sh_workspace w = {memory, 0};
    g->gram = sh_take(&w, g->size * g->size, sizeof(double));
    g->values = sh_take(&w, g->size, sizeof(double));
    g->work = sh_take(&w, g->lwork, sizeof(double));
    g->iwork = sh_take(&w, g->liwork, sizeof(int));
    g->rows = sh_take(&w, wanted * g->d, sizeof(double));
    g->product = sh_take(&w, wanted * wanted, sizeof(double));
    return w.used;
}

enum { STRIP = 128 }; /* rows of the Gram matrix that an item of work computes */
/* Computes a strip of the Gram matrix, up to the diagonal. */
static sh_status gram_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    directions *g = pointer;
    int64_t first = item * STRIP, rows = sh_min(STRIP, g->size - first), columns = first + rows;
    const double *strip = g->by_features ? g->sample + first : g->sample + first * g->d;
    sh_gemm_f64(g->by_features, !g->by_features, rows, columns, g->by_features ? g->n : g->d, 1, strip, g->d, g->sample,
                g->d, 0, g->gram + first * g->size, g->size);
    return SH_OK;
}

/* Computes a bound on |V V^T - I|_F, in double. */
static double orthogonality_error(directions *g, const float *basis, int64_t rank) {
    double sum = 0;
    for (int64_t j = 0; j < rank * g->d; j++) g->rows[j] = (double)basis[j];
    sh_gemm_f64(0, 1, rank, rank, g->d, 1, g->rows, g->d, g->rows, g->d, 0, g->product, rank);
    for (int64_t i = 0; i < rank; i++)
        for (int64_t j = 0; j < rank; j++) {
            double e = g->product[i * rank + j] - (i == j);
            sum += e * e;
        }
    return sqrt(sum) * (1 + 1e-9) + (double)(rank * (g->d + 8)) * 0x1p-52; /* the product's own rounding */
}

/* Takes the basis from the eigenvectors. Returns its rank. */
static int64_t take_basis(directions *g, int64_t wanted, float *basis) {
    const double *end = g->values + g->size; /* of the eigenvalues: end[-1] is the largest */
    int64_t found = 0;
    if (g->by_features) {
        for (; found < wanted; found++)
            for (int64_t j = 0; j < g->d; j++)
                basis[found * g->d + j] = (float)g->gram[(g->size - 1 - found) * g->d + j];
        return found;
    }
    while (found < wanted && end[-1 - found] > 1e-9 * end[-1]) found++;
    /* V = U^T S; the last rows of the eigenvectors are the leading ones */
    sh_gemm_f64(0, 0, found, g->d, g->size, 1, g->gram + (g->size - found) * g->size, g->size, g->sample, g->d, 0,
                g->rows, g->d);
    for (int64_t i = 0; i < found; i++) {
        double inverse = 1 / sqrt(end[-1 - i]);
        for (int64_t j = 0; j < g->d; j++) basis[i * g->d + j] = (float)(inverse * g->rows[(found - 1 - i) * g->d + j]);
    }
    return found;
}

sh_status sh_principal_directions(sh_context *context, const double *sample, int64_t n, int64_t d, int64_t wanted,
                                  float *basis, int64_t *rank, double *left_out, double *eta) {
    directions g = {.sample = sample, .n = n, .d = d, .by_features = d <= SH_LARGEST_GRAM};
    g.size = g.by_features ? d : n;
    wanted = sh_min(wanted, g.size);
    int size = (int)g.size, info = 0;
    g.lwork = 1 + 6 * size + 2 * size * size;
    g.liwork = 3 + 5 * size;
    *rank = 0;
    *left_out = *eta = 0;
    void *memory = sh_allocate(context, 1, lay_out(&g, wanted, NULL));
    if (!memory) return SH_NO_MEMORY;
    lay_out(&g, wanted, memory);
    sh_status status = sh_for_each(context, sh_ceil_div(g.size, STRIP), 0, gram_item, &g);
    if (status == SH_OK) /* row major, the lower half: column major, the upper */
        SH_BLAS_CALL(dsyevd_, "V", "U", &size, g.gram, &size, g.values, g.work, &g.lwork, g.iwork, &g.liwork, &info, 1,
                     1);
    if (status == SH_OK && info == 0) {
        double total = 0, leading = 0;
        for (int i = 0; i < size; i++) total += fmax(g.values[i], 0);
        for (int i = 0; i < sh_min(SH_SHORT_CODE, size); i++) leading += fmax(g.values[size - 1 - i], 0);
        *left_out = total > 0 ? 1 - leading / total : 0;
        *rank = take_basis(&g, wanted, basis);
        *eta = *rank ? orthogonality_error(&g, basis, *rank) : 0;
    }
    sh_release(context, memory);
    return status;
}
