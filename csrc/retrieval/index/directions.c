/* retrieval/index/directions.c: orthonormal rows along the leading directions of sampled patterns, by LAPACK.
 *
 * Any orthonormal rows give right bounds (retrieval/index/bounds.c); these give tight ones. So what matters for
 * exactness is only how far from orthonormal they are, and that is measured.
 */
#include "retrieval/index/index.h"
#include "runtime/blas.h"
#include <math.h>
#include <string.h>

void BLAS(dsyevd_)(const char *job, const char *half, const int *n, double *a, const int *lda, double *values,
                   double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);

typedef struct {
    const double *s;
    int64_t n, d, size;
    int by_features;
    double *gram;
} gram_job;

enum { STRIP = 128 };
static sh_status gram_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    gram_job *g = pointer;
    int64_t first = item * STRIP, rows = sh_min(STRIP, g->size - first), columns = first + rows;
    if (g->by_features) /* rows of S^T S, up to the diagonal */
        sh_gemm_f64(1, 0, rows, columns, g->n, 1, g->s + first, g->d, g->s, g->d, 0, g->gram + first * g->size,
                    g->size);
    else
        sh_gemm_f64(0, 1, rows, columns, g->d, 1, g->s + first * g->d, g->d, g->s, g->d, 0, g->gram + first * g->size,
                    g->size);
    return SH_OK;
}

/* |V V^T - I|_F in double; < 0 without memory */
static double departure(sh_context *context, const float *basis, int64_t rank, int64_t d) {
    double *v = sh_allocate(context, rank * d, sizeof(double)), *product = sh_allocate(context, rank * rank, 8);
    double sum = -1;
    if (v && product) {
        for (int64_t j = 0; j < rank * d; j++) v[j] = (double)basis[j];
        sh_gemm_f64(0, 1, rank, rank, d, 1, v, d, v, d, 0, product, rank);
        sum = 0;
        for (int64_t i = 0; i < rank; i++)
            for (int64_t j = 0; j < rank; j++) {
                double e = product[i * rank + j] - (i == j);
                sum += e * e;
            }
        sum = sqrt(sum) * (1 + 1e-9) + (double)(rank * (d + 8)) * 0x1p-52; /* the product's own rounding */
    }
    sh_release(context, v);
    sh_release(context, product);
    return sum;
}

sh_status sh_principal_directions(sh_context *context, const double *s, int64_t n, int64_t d, int64_t wanted,
                                  float *basis, int64_t *rank, double *left_out, double *eta) {
    gram_job g = {.s = s, .n = n, .d = d, .by_features = d <= SH_LARGEST_GRAM};
    g.size = g.by_features ? d : n;
    int size = (int)g.size, lwork = 1 + 6 * size + 2 * size * size, liwork = 3 + 5 * size, info = 0;
    double *values = sh_allocate(context, g.size, sizeof(double)), *work = sh_allocate(context, lwork, sizeof(double));
    int *iwork = sh_allocate(context, liwork, sizeof(int));
    int64_t found = 0;
    double *rows = NULL;
    sh_status status = SH_NO_MEMORY;
    *rank = 0;
    *left_out = *eta = 0;
    g.gram = sh_allocate(context, g.size * g.size, sizeof(double));
    if (!values || !work || !iwork || !g.gram) goto done;
    status = sh_for_each(context, sh_ceil_div(g.size, STRIP), 0, gram_item, &g);
    if (status != SH_OK) goto done;
    /* row major, the lower half: column major, the upper */
    SH_BLAS_CALL(dsyevd_, "V", "U", &size, g.gram, &size, values, work, &lwork, iwork, &liwork, &info, 1, 1);
    if (info != 0) goto done;
    double total = 0, first = 0, largest = values[size - 1];
    for (int i = 0; i < size; i++) total += fmax(values[i], 0);
    for (int i = 0; i < sh_min(SH_SHORT_CODE, size); i++) first += fmax(values[size - 1 - i], 0);
    *left_out = total > 0 ? 1 - first / total : 0;
    wanted = sh_min(wanted, g.size);
    if (g.by_features) {
        for (; found < wanted; found++)
            for (int64_t j = 0; j < d; j++) basis[found * d + j] = (float)g.gram[(size - 1 - found) * d + j];
        goto measure;
    }
    while (found < wanted && values[size - 1 - found] > 1e-9 * largest) found++;
    rows = sh_allocate(context, sh_max(found, 1) * d, sizeof(double));
    if (!rows) {
        status = SH_NO_MEMORY;
        goto done;
    }
    /* V = U^T S; the last rows of the eigenvectors are the leading ones */
    sh_gemm_f64(0, 0, found, d, size, 1, g.gram + (size - found) * g.size, size, s, d, 0, rows, d);
    for (int64_t i = 0; i < found; i++) {
        double unit = 1 / sqrt(values[size - 1 - i]);
        for (int64_t j = 0; j < d; j++) basis[i * d + j] = (float)(unit * rows[(found - 1 - i) * d + j]);
    }
measure:
    *rank = found;
    *eta = found ? departure(context, basis, found, d) : 0;
    if (*eta < 0) status = SH_NO_MEMORY;
done:
    sh_release(context, values);
    sh_release(context, work);
    sh_release(context, iwork);
    sh_release(context, g.gram);
    sh_release(context, rows);
    return status;
}
