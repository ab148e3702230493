/* rowmaps.c: the table of separation maps for Python, and the maps of rows as NumPy generalised ufuncs: axis, out,
 * broadcasting and dtypes come from NumPy.
 *
 * Loops are of the kind that can return an error. Rows are handed out to the thread pool in items of some
 * ITEM numbers; a row that is not contiguous is copied into scratch memory and back.
 */
#define _GNU_SOURCE
#include <time.h>
#include "binding/binding.h"
#include "separation/separation.h"
#include <float.h>
#include <stdio.h>
#include <string.h>

enum { ITEM = 1 << 15, SERIAL = 1 << 16, STACK = 4096, MOST_ROW_MAPS = 64 };

/* One part of a map, as a ufunc: "entmax_vjp". */
typedef struct {
    char name[40]; /* the ufunc keeps this very pointer: see `loop` */
    char doc[120], signature[32];
    sh_separation separation;
    sh_row_part part;
    int rows;                      /* inputs that are rows */
    const sh_parameter *parameter; /* NULL: takes none */
} row_map;

static row_map row_maps[MOST_ROW_MAPS];
static const sh_parameter top_k = {.name = "k", .least = 1, .most = DBL_MAX};

typedef struct {
    const row_map *map;
    sh_type type;
    int64_t rows, n, per_item;
    char *const *data;
    const npy_intp *step;   /* outer stride of every operand */
    const npy_intp *stride; /* core stride of every operand that is a row */
} batch;

static int inputs_of(const row_map *map) { return map->rows + (map->parameter != NULL); }
static int outputs_of(const row_map *map) { return map->part == SH_ROW_PART_THRESHOLD ? 2 : 1; }
static int gives_rows(const row_map *map) {
    return map->part == SH_ROW_PART_WEIGHTS || map->part == SH_ROW_PART_VJP || map->part == SH_ROW_PART_TOP;
}
static size_t item_size(sh_type type) { return type == SH_FLOAT64 ? sizeof(double) : sizeof(float); }
static size_t scratch_bytes(const batch *b) {
    return sh_align(sh_row_scratch(b->n)) + 4 * sh_align((size_t)b->n * item_size(b->type));
}

static void copy_row(char *to, npy_intp to_stride, const char *from, npy_intp from_stride, int64_t n, size_t size) {
    for (int64_t j = 0; j < n; j++) memcpy(to + j * to_stride, from + j * from_stride, size);
}

static sh_status do_rows(const batch *b, int64_t first, int64_t last, char *scratch) {
    const row_map *map = b->map;
    size_t size = item_size(b->type);
    char *copies = scratch + sh_align(sh_row_scratch(b->n));
    int inputs = inputs_of(map);
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
        if (map->parameter) memcpy(&parameter, b->data[map->rows] + i * b->step[map->rows], sizeof parameter);
        char *result = b->data[inputs] + i * b->step[inputs];
        int scattered = gives_rows(map) && b->n > 1 && b->stride[map->rows] != (npy_intp)size;
        out[0] = scattered ? copies + 3 * sh_align((size_t)b->n * size) : result;
        if (outputs_of(map) == 2) out[1] = b->data[inputs + 1] + i * b->step[inputs + 1];
        sh_status status =
            sh_map_row((sh_model){map->separation, parameter}, map->part, b->type, b->n, in, out, scratch);
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

static void raise_parameter(const sh_parameter *p) {
    char least[32];
    snprintf(least, sizeof least, "%s %g", p->above ? "above" : "of at least", p->least);
    PyErr_Format(PyExc_ValueError, "%s: must be a %s number %s", p->name, p->whole ? "whole" : "finite", least);
}

static int run(const row_map *map, sh_type type, char *const data[], const npy_intp dimensions[],
               const npy_intp strides[]) {
    batch b = {.map = map, .type = type, .rows = dimensions[0], .n = dimensions[1], .data = data, .step = strides};
    b.stride = strides + inputs_of(map) + outputs_of(map);
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
    if (status == SH_BAD_ARGUMENT && map->parameter)
        raise_parameter(map->parameter);
    else
        sh_raise(&call, status, type);
    PyGILState_Release(gil);
    return -1;
}

/* The loops of all ufuncs. Which one is called is told by its name, the first field of a row_map. */
static int loop(PyArrayMethod_Context *context, sh_type type, char *const data[], const npy_intp dimensions[],
                const npy_intp strides[]) {
    const char *name = ((PyUFuncObject *)context->caller)->name;
    return run((const row_map *)name, type, data, dimensions, strides);
}
static int loop_f32(PyArrayMethod_Context *context, char *const data[], const npy_intp dimensions[],
                    const npy_intp strides[], NpyAuxData *aux) {
    (void)aux;
    return loop(context, SH_FLOAT32, data, dimensions, strides);
}
static int loop_f64(PyArrayMethod_Context *context, char *const data[], const npy_intp dimensions[],
                    const npy_intp strides[], NpyAuxData *aux) {
    (void)aux;
    return loop(context, SH_FLOAT64, data, dimensions, strides);
}

static PyArray_DTypeMeta *dtype_of(int number) { /* borrowed: NumPy's own types live forever */
    PyArray_Descr *descriptor = PyArray_DescrFromType(number);
    PyArray_DTypeMeta *type = (PyArray_DTypeMeta *)Py_TYPE((PyObject *)descriptor);
    Py_DECREF((PyObject *)descriptor);
    return type;
}

static int add_loop(PyObject *ufunc, const row_map *map, int f64) {
    PyArray_DTypeMeta *real = dtype_of(f64 ? NPY_FLOAT64 : NPY_FLOAT32), *dtypes[6];
    int n = 0;
    for (int i = 0; i < map->rows; i++) dtypes[n++] = real;
    if (map->parameter) dtypes[n++] = dtype_of(NPY_FLOAT64);
    dtypes[n++] = real;
    if (outputs_of(map) == 2) dtypes[n++] = dtype_of(NPY_INT64);
    union { /* a slot keeps functions as object pointers */
        int (*function)(PyArrayMethod_Context *, char *const *, const npy_intp *, const npy_intp *, NpyAuxData *);
        void *slot;
    } strided = {.function = f64 ? loop_f64 : loop_f32};
    PyType_Slot slots[] = {{NPY_METH_strided_loop, strided.slot}, {0, NULL}};
    PyArrayMethod_Spec spec = {.name = map->name,
                               .nin = inputs_of(map),
                               .nout = outputs_of(map),
                               .casting = NPY_NO_CASTING,
                               .flags = NPY_METH_NO_FLOATINGPOINT_ERRORS,
                               .dtypes = dtypes,
                               .slots = slots};
    return PyUFunc_AddLoopFromSpec(ufunc, &spec);
}

/* Adds the ufunc of a part of a map to a dictionary, with these words for documentation; -1 with an exception set. */
static int add_ufunc(PyObject *ufuncs, int *count, row_map map, const char *doc) {
    static const char *const outputs[SH_ROW_PARTS] = {
        [SH_ROW_PART_WEIGHTS] = "(n)",      [SH_ROW_PART_THRESHOLD] = "(),()", [SH_ROW_PART_VJP] = "(n)",
        [SH_ROW_PART_VJP_PARAMETER] = "()", [SH_ROW_PART_CONJUGATE] = "()",    [SH_ROW_PART_TOP] = "(n)",
    };
    snprintf(map.signature, sizeof map.signature, "%s%s->%s", &"(n),(n),(n)"[4 * (3 - map.rows)],
             map.parameter ? ",()" : "", outputs[map.part]);
    snprintf(map.doc, sizeof map.doc, "%s", doc);
    if (*count == MOST_ROW_MAPS) return PyErr_NoMemory() ? 0 : -1;
    row_map *own = &row_maps[(*count)++];
    *own = map;
    PyObject *ufunc = PyUFunc_FromFuncAndDataAndSignature(NULL, NULL, NULL, 0, inputs_of(own), outputs_of(own),
                                                          PyUFunc_None, own->name, own->doc, 0, own->signature);
    if (!ufunc) return -1;
    int failed = add_loop(ufunc, own, 0) < 0 || add_loop(ufunc, own, 1) < 0 ||
                 PyDict_SetItemString(ufuncs, own->name, ufunc) < 0;
    Py_DECREF(ufunc);
    return failed ? -1 : 0;
}

/* Adds the ufuncs of one map: what it has, and the k best scores of maps without a parameter. */
static int add_map(PyObject *ufuncs, int *count, int number, const sh_map *map) {
    const sh_parameter *parameter = map->parameter.name ? &map->parameter : NULL;
    const struct {
        sh_row_part part;
        int there, rows;
        const char *before, *after, *doc;
    } parts[] = {
        {SH_ROW_PART_WEIGHTS, 1, 1, "", "", map->formula},
        {SH_ROW_PART_TOP, !parameter, 1, "topk_", "", "The map of the k largest of every row."},
        {SH_ROW_PART_THRESHOLD, map->cutoff != NULL, 1, "", "_threshold", "tau and support size."},
        {SH_ROW_PART_VJP, 1, 2 + map->vjp_takes_scores, "", "_vjp", "Vector-Jacobian product from (z,) p and g."},
        {SH_ROW_PART_VJP_PARAMETER, map->vjp_parameter != NULL, 2, "", "_vjp_",
         "Derivative of <g, p> in the parameter."},
        {SH_ROW_PART_CONJUGATE, map->has_energy, 1, "", "_conjugate", "Psi*(z)."},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i].there) continue;
        const int top = parts[i].part == SH_ROW_PART_TOP, derivative = parts[i].part == SH_ROW_PART_VJP_PARAMETER;
        row_map made = {.separation = (sh_separation)number, .part = parts[i].part, .rows = parts[i].rows};
        made.parameter = top ? &top_k : parameter;
        snprintf(made.name, sizeof made.name, "%s%s%s%s", parts[i].before, map->name, parts[i].after,
                 derivative ? parameter->name : "");
        if (add_ufunc(ufuncs, count, made, parts[i].doc) < 0) return -1;
    }
    return 0;
}

/* Returns a row of the table of maps, as the arguments of separations.MapRow. */
static PyObject *described(int number, const sh_map *map) {
    const sh_parameter *p = &map->parameter;
    PyObject *parameter = p->name ? Py_BuildValue("sddNN", p->name, p->least, p->most, PyBool_FromLong(p->above),
                                                  PyBool_FromLong(p->whole))
                                  : Py_NewRef(Py_None);
    if (!parameter) return NULL;
    return Py_BuildValue("{s:i,s:s,s:z,s:z,s:z,s:z,s:d,s:N,s:N,s:N,s:N,s:N}", "number", number, "name", map->name,
                         "alias", map->alias, "formula", map->formula, "regulariser", map->regulariser, "source",
                         map->source, "standard", p->standard, "parameter", parameter, "has_energy",
                         PyBool_FromLong(map->has_energy), "shift_invariant", PyBool_FromLong(map->shift_invariant),
                         "signed_weights", PyBool_FromLong(map->signed_weights), "vjp_takes_scores",
                         PyBool_FromLong(map->vjp_takes_scores));
}

/* Returns the map of a model, with its parameter checked; NULL with an exception set. */
static const sh_map *as_map(PyObject *arguments, sh_model *model, PyObject **z) {
    int number;
    *z = NULL;
    if (!PyArg_ParseTuple(arguments, "id|O", &number, &model->parameter, z)) return NULL;
    model->separation = (sh_separation)number;
    const sh_map *map = sh_map_of(model);
    if (!map) PyErr_SetString(PyExc_ValueError, "separation: no map has this number and parameter");
    return map;
}

static PyObject *cutoff(PyObject *module, PyObject *arguments) {
    (void)module;
    sh_model model;
    PyObject *z;
    const sh_map *map = as_map(arguments, &model, &z);
    if (!map) return NULL;
    if (!map->cutoff) Py_RETURN_NONE;
    return PyFloat_FromDouble(map->cutoff(model.parameter));
}

static PyObject *reach(PyObject *module, PyObject *arguments) {
    (void)module;
    sh_model model;
    PyObject *patterns;
    const sh_map *map = as_map(arguments, &model, &patterns);
    if (!map) return NULL;
    if (!map->reach || !patterns) return PyErr_Format(PyExc_ValueError, "separation: %s has no reach", map->name);
    const long long count = PyLong_AsLongLong(patterns);
    if (PyErr_Occurred()) return NULL;
    const sh_float_settings before = sh_float_default();
    const double single = map->reach(0x1p-24, count), twice = map->reach(0x1p-53, count);
    sh_float_restore(before);
    return Py_BuildValue("dd", single, twice);
}

static PyObject *cut(PyObject *module, PyObject *arguments) {
    (void)module;
    sh_model model;
    PyObject *z;
    const sh_map *map = as_map(arguments, &model, &z);
    if (!map) return NULL;
    if (!map->cutoff || !z) return PyErr_Format(PyExc_ValueError, "separation: %s has no threshold", map->name);
    PyArrayObject *copy =
        (PyArrayObject *)PyArray_FROMANY(z, NPY_FLOAT64, 1, 1, NPY_ARRAY_CARRAY | NPY_ARRAY_ENSURECOPY);
    if (!copy) return NULL;
    sh_threshold t;
    const sh_float_settings before = sh_float_default();
    map->threshold(model.parameter, PyArray_SIZE(copy), PyArray_DATA(copy), &t);
    sh_float_restore(before);
    Py_DECREF(copy);
    return PyFloat_FromDouble(t.tau / t.unit);
}

static PyMethodDef map_operations[] = {
    {"cutoff", cutoff, METH_VARARGS,
     "cutoff(number, parameter): how far below the best a score must be to have no weight; None: all have."},
    {"reach", reach, METH_VARARGS,
     "reach(number, parameter, patterns): how far below the best, times beta, a score of so many may be and have "
     "weight in "
     "canonical results; in float32, and in float64."},
    {"cut", cut, METH_VARARGS,
     "cut(number, parameter, z): the score at or below which none has weight, of scores relative to the best."},
    {NULL, NULL, 0, NULL},
};

int sh_add_row_maps(PyObject *module) {
    int maps = 0, count = 0;
    while (sh_map_numbered(maps)) maps++;
    PyObject *table = PyTuple_New(maps), *ufuncs = PyDict_New();
    for (int i = 0; table && i < maps; i++) {
        PyObject *row = described(i, sh_map_numbered(i));
        if (!row || PyTuple_SetItem(table, i, row) < 0) Py_CLEAR(table);
    }
    int failed = !table || !ufuncs || PyModule_AddObjectRef(module, "maps", table) < 0 ||
                 PyModule_AddFunctions(module, map_operations) < 0;
    for (int i = 0; !failed && i < maps; i++) failed = add_map(ufuncs, &count, i, sh_map_numbered(i)) < 0;
    failed = failed || PyModule_AddObjectRef(module, "row_maps", ufuncs) < 0;
    Py_XDECREF(ufuncs);
    Py_XDECREF(table);
    return failed ? -1 : 0;
}
