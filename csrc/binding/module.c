/* module.c: the module sparsehopfield._core. */
#define _GNU_SOURCE
#include <time.h>
#define SH_IMPORTS_NUMPY
#include "binding/binding.h"
#include "features/sums.h"
#include "retrieval/job.h"
#include "structure/structure.h"

/* Adds the sizes by which Python tells what an operation costs. */
static int add_sizes(PyObject *module) {
    static const struct {
        const char *name;
        int size;
    } sizes[] = {
        {"FEATURE_BLOCK", SH_FEATURE_BLOCK}, {"CAUSAL_BLOCK", SH_CAUSAL_BLOCK},
        {"FEATURE_PARTS", SH_FEATURE_PARTS}, {"TILE", SH_TILE},
        {"SCAN_QUERIES", SH_BLOCK},          {"PAIR_QUERIES", SH_PLACES},
        {"PAIR_CAPACITY", SH_PAIR_CAPACITY},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (PyModule_AddIntConstant(module, sizes[i].name, sizes[i].size) < 0) return -1;
    return 0;
}

static int execute(PyObject *module) {
    if (PyArray_ImportNumPyAPI() < 0 || PyUFunc_ImportUFuncAPI() < 0) return -1;
    if (sh_watch_main_thread() < 0) return -1;
    if (sh_initialise() != SH_OK) {
        PyErr_SetString(PyExc_ImportError,
                        "sparsehopfield: the BLAS computes float32 products in a shorter format, so exact "
                        "retrieval is impossible; rebuild with SPARSEHOPFIELD_BLAS=bundled");
        return -1;
    }
    const sh_ignored *ignored;
    for (int i = 0, n = sh_ignored_settings(&ignored); i < n; i++)
        if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "%s=%s is ignored: must be %s", ignored[i].name, ignored[i].value,
                             ignored[i].allowed) < 0)
            return -1;
    if (PyModule_AddStringConstant(module, "__version__", sh_version()) < 0) return -1;
    if (PyModule_AddFunctions(module, sh_layer_operations) < 0) return -1;
    if (PyModule_AddFunctions(module, sh_feature_operations) < 0) return -1;
#ifdef SH_TESTING
    if (PyModule_AddFunctions(module, sh_test_operations) < 0) return -1;
#endif
    return add_sizes(module) < 0 ? -1 : sh_add_row_maps(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_mod_multiple_interpreters /* NumPy does not import in subinterpreters */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,      .m_name = "_core", .m_doc = "The C core of sparsehopfield.",
    .m_methods = sh_operations, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
