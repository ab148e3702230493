/* rowmaps.c: the row maps as NumPy generalised ufuncs: axis, out, broadcasting and dtypes come from NumPy.
 *
 * Loops are of the kind that can return an error. Rows are handed out to the thread pool in items of some
 * ITEM numbers; a row that is not contiguous is copied into scratch memory and back.
 */
#define _GNU_SOURCE
#include <time.h>
#include "binding/binding.h"
#include <string.h>

enum { ITEM = 1 << 15, SERIAL = 1 << 16, STACK = 4096 };

typedef enum { NONE, ALPHA, ORDER, TOP_K } parameter_kind;
typedef enum { WEIGHTS, NUMBER, THRESHOLD } result_kind;
typedef struct {
    const char *name, *signature;
    int rows; /* inputs that are rows */
    parameter_kind parameter;
    result_kind result;
    const char *doc;
} row_map;

static const row_map row_maps[SH_ROW_MAPS] = {
    [SH_ROW_SOFTMAX] = {"softmax", "(n)->(n)", 1, NONE, WEIGHTS, "exp(z) / sum exp(z) of every row."},
    [SH_ROW_SPARSEMAX] = {"sparsemax", "(n)->(n)", 1, NONE, WEIGHTS, "[z - tau]_+ of every row, summing to 1."},
    [SH_ROW_ENTMAX] = {"entmax", "(n),()->(n)", 1, ALPHA, WEIGHTS, "alpha-entmax of every row."},
    [SH_ROW_POLYNOMIAL] = {"polynomial", "(n),()->(n)", 1, ORDER, WEIGHTS, "z^order / sum z^order of every row."},
    [SH_ROW_TOPK_SOFTMAX] = {"topk_softmax", "(n),()->(n)", 1, TOP_K, WEIGHTS,
                             "softmax of the k largest of every row."},
    [SH_ROW_TOPK_SPARSEMAX] = {"topk_sparsemax", "(n),()->(n)", 1, TOP_K, WEIGHTS,
                               "sparsemax of the k largest of every row."},
    [SH_ROW_SPARSEMAX_THRESHOLD] = {"sparsemax_threshold", "(n)->(),()", 1, NONE, THRESHOLD, "tau and support size."},
    [SH_ROW_ENTMAX_THRESHOLD] = {"entmax_threshold", "(n),()->(),()", 1, ALPHA, THRESHOLD, "tau and support size."},
    [SH_ROW_SOFTMAX_VJP] = {"softmax_vjp", "(n),(n)->(n)", 2, NONE, WEIGHTS, "Vector-Jacobian product from p and g."},
    [SH_ROW_SPARSEMAX_VJP] = {"sparsemax_vjp", "(n),(n)->(n)", 2, NONE, WEIGHTS,
                              "Vector-Jacobian product from p and g."},
    [SH_ROW_ENTMAX_VJP] = {"entmax_vjp", "(n),(n),()->(n)", 2, ALPHA, WEIGHTS, "Vector-Jacobian product from p and g."},
    [SH_ROW_ENTMAX_VJP_ALPHA] = {"entmax_vjp_alpha", "(n),(n),()->()", 2, ALPHA, NUMBER,
                                 "Derivative of <g, p> in alpha."},
    [SH_ROW_POLYNOMIAL_VJP] = {"polynomial_vjp", "(n),(n),(n),()->(n)", 3, ORDER, WEIGHTS,
                               "Vector-Jacobian product from z, p and g."},
    [SH_ROW_SOFTMAX_CONJUGATE] = {"softmax_conjugate", "(n)->()", 1, NONE, NUMBER, "log sum exp z."},
    [SH_ROW_SPARSEMAX_CONJUGATE] = {"sparsemax_conjugate", "(n)->()", 1, NONE, NUMBER, "Psi*(z)."},
    [SH_ROW_ENTMAX_CONJUGATE] = {"entmax_conjugate", "(n),()->()", 1, ALPHA, NUMBER, "Psi*(z)."},
};

typedef struct {
    sh_row_op op;
    sh_type type;
    int64_t rows, n, per_item;
    char *const *data;
    const npy_intp *step;   /* outer stride of every operand */
    const npy_intp *stride; /* core stride of every operand that is a row */
} batch;

static size_t item_size(sh_type type) { return type == SH_FLOAT64 ? sizeof(double) : sizeof(float); }
static size_t scratch_bytes(const batch *b) {
    return sh_align(sh_row_scratch(b->n)) + 4 * sh_align((size_t)b->n * item_size(b->type));
}

static void copy_row(char *to, npy_intp to_stride, const char *from, npy_intp from_stride, int64_t n, size_t size) {
    for (int64_t j = 0; j < n; j++) memcpy(to + j * to_stride, from + j * from_stride, size);
}

static sh_status do_rows(const batch *b, int64_t first, int64_t last, char *scratch) {
    const row_map *map = &row_maps[b->op];
    size_t size = item_size(b->type);
    char *copies = scratch + sh_align(sh_row_scratch(b->n));
    int inputs = map->rows + (map->parameter != NONE);
    for (int64_t i = first; i < last; i++) {
        const void *in[3] = {0};
        void *out[2] = {0};
        for (int j = 0; j < map->rows; j++) {
            const char *row = b->data[j] + i * b->step[j];
            if (b->n > 1 && b->stride[j] != (npy_intp)size) {
                char *copy = copies + (size_t)j * sh_align((size_t)b->n * size);
                copy_row(copy, (npy_intp)size, row, b->stride[j], b->n, size);
                row = copy;
            }
            in[j] = row;
        }
        double parameter = 0;
        if (map->parameter != NONE) memcpy(&parameter, b->data[map->rows] + i * b->step[map->rows], sizeof parameter);
        char *result = b->data[inputs] + i * b->step[inputs];
        int scattered = map->result == WEIGHTS && b->n > 1 && b->stride[map->rows] != (npy_intp)size;
        out[0] = scattered ? copies + 3 * sh_align((size_t)b->n * size) : result;
        if (map->result == THRESHOLD) out[1] = b->data[inputs + 1] + i * b->step[inputs + 1];
        sh_status status = sh_row(b->op, b->type, b->n, parameter, in, out, scratch);
        if (status != SH_OK) return status;
        if (scattered) copy_row(result, b->stride[map->rows], out[0], (npy_intp)size, b->n, size);
    }
    return SH_OK;
}

static sh_status do_item(void *job, int64_t item, void *scratch, sh_context *context) {
    const batch *b = job;
    int64_t first = item * b->per_item;
    sh_status status = do_rows(b, first, sh_min(first + b->per_item, b->rows), scratch);
    return status == SH_OK ? SH_OK : sh_fail(context, status, NULL, 0);
}

static void raise_parameter(parameter_kind kind) {
    PyErr_SetString(PyExc_ValueError, kind == ALPHA   ? "alpha: must be a finite number of at least 1"
                                      : kind == ORDER ? "order: must be a whole number of at least 1"
                                                      : "k: must be at least 1");
}

static int run(sh_row_op op, sh_type type, char *const data[], const npy_intp dimensions[], const npy_intp strides[]) {
    const row_map *map = &row_maps[op];
    int operands = map->rows + (map->parameter != NONE) + (map->result == THRESHOLD ? 2 : 1);
    batch b = {.op = op, .type = type, .rows = dimensions[0], .n = dimensions[1], .data = data, .step = strides};
    b.stride = strides + operands;
    b.per_item = sh_max(1, ITEM / sh_max(b.n, 1));
    sh_call call = sh_begin_call(1);
    sh_status status;
    const sh_float_settings before = sh_float_default();
    if (scratch_bytes(&b) <= STACK && b.rows * b.n <= SERIAL) {
        _Alignas(64) char scratch[STACK];
        status = do_rows(&b, 0, b.rows, scratch);
    } else {
        call.core.threads = b.rows * b.n <= SERIAL ? 1 : sh_get_num_threads();
        status = sh_for_each(SH_CALL(call), sh_ceil_div(b.rows, b.per_item), scratch_bytes(&b), do_item, &b);
    }
    sh_float_restore(before); /* without flags: comparisons with NaN are meant; NumPy would warn of them */
    if (status == SH_OK) return 0;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (status == SH_BAD_ARGUMENT)
        raise_parameter(map->parameter);
    else
        sh_raise(&call, status, type);
    PyGILState_Release(gil);
    return -1;
}

/* NumPy calls a loop without saying for which ufunc, so each has one, made here from the list of operations. */
#define LOOPS(OP)                                                                                                      \
    static int OP##_f32(PyArrayMethod_Context *context, char *const data[], const npy_intp dimensions[],               \
                        const npy_intp strides[], NpyAuxData *aux) {                                                   \
        (void)context, (void)aux;                                                                                      \
        return run(SH_ROW_##OP, SH_FLOAT32, data, dimensions, strides);                                                \
    }                                                                                                                  \
    static int OP##_f64(PyArrayMethod_Context *context, char *const data[], const npy_intp dimensions[],               \
                        const npy_intp strides[], NpyAuxData *aux) {                                                   \
        (void)context, (void)aux;                                                                                      \
        return run(SH_ROW_##OP, SH_FLOAT64, data, dimensions, strides);                                                \
    }
#define ROW_MAPS(DO)                                                                                                   \
    DO(SOFTMAX)                                                                                                        \
    DO(SPARSEMAX)                                                                                                      \
    DO(ENTMAX)                                                                                                         \
    DO(POLYNOMIAL)                                                                                                     \
    DO(TOPK_SOFTMAX)                                                                                                   \
    DO(TOPK_SPARSEMAX)                                                                                                 \
    DO(SPARSEMAX_THRESHOLD)                                                                                            \
    DO(ENTMAX_THRESHOLD)                                                                                               \
    DO(SOFTMAX_VJP)                                                                                                    \
    DO(SPARSEMAX_VJP)                                                                                                  \
    DO(ENTMAX_VJP)                                                                                                     \
    DO(ENTMAX_VJP_ALPHA)                                                                                               \
    DO(POLYNOMIAL_VJP)                                                                                                 \
    DO(SOFTMAX_CONJUGATE)                                                                                              \
    DO(SPARSEMAX_CONJUGATE)                                                                                            \
    DO(ENTMAX_CONJUGATE)
ROW_MAPS(LOOPS)

typedef int (*loop)(PyArrayMethod_Context *, char *const *, const npy_intp *, const npy_intp *, NpyAuxData *);
#define PAIR(OP) [SH_ROW_##OP] = {OP##_f32, OP##_f64},
static const loop loops[SH_ROW_MAPS][2] = {ROW_MAPS(PAIR)};

static PyArray_DTypeMeta *dtype_of(int number) { /* borrowed: NumPy's own types live forever */
    PyArray_Descr *descriptor = PyArray_DescrFromType(number);
    PyArray_DTypeMeta *type = (PyArray_DTypeMeta *)Py_TYPE((PyObject *)descriptor);
    Py_DECREF((PyObject *)descriptor);
    return type;
}

static int add_loop(PyObject *ufunc, const row_map *map, sh_row_op op, int wide) {
    PyArray_DTypeMeta *real = dtype_of(wide ? NPY_FLOAT64 : NPY_FLOAT32), *dtypes[6];
    int n = 0;
    for (int i = 0; i < map->rows; i++) dtypes[n++] = real;
    if (map->parameter != NONE) dtypes[n++] = dtype_of(NPY_FLOAT64);
    int inputs = n;
    dtypes[n++] = real;
    if (map->result == THRESHOLD) dtypes[n++] = dtype_of(NPY_INT64);
    union { /* a slot keeps functions as object pointers */
        loop function;
        void *slot;
    } strided = {.function = loops[op][wide]};
    PyType_Slot slots[] = {{NPY_METH_strided_loop, strided.slot}, {0, NULL}};
    PyArrayMethod_Spec spec = {.name = map->name,
                               .nin = inputs,
                               .nout = n - inputs,
                               .casting = NPY_NO_CASTING,
                               .flags = NPY_METH_NO_FLOATINGPOINT_ERRORS,
                               .dtypes = dtypes,
                               .slots = slots};
    return PyUFunc_AddLoopFromSpec(ufunc, &spec);
}

int sh_add_row_maps(PyObject *module) {
    for (int op = 0; op < SH_ROW_MAPS; op++) {
        const row_map *map = &row_maps[op];
        int inputs = map->rows + (map->parameter != NONE), outputs = map->result == THRESHOLD ? 2 : 1;
        PyObject *ufunc = PyUFunc_FromFuncAndDataAndSignature(NULL, NULL, NULL, 0, inputs, outputs, PyUFunc_None,
                                                              map->name, map->doc, 0, map->signature);
        if (!ufunc) return -1;
        int failed = add_loop(ufunc, map, op, 0) < 0 || add_loop(ufunc, map, op, 1) < 0 ||
                     PyModule_AddObjectRef(module, map->name, ufunc) < 0;
        Py_DECREF(ufunc);
        if (failed) return -1;
    }
    return 0;
}
