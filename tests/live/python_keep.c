/* A module of Python that keeps memory: take(bytes) is a leak in C. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

struct block {
    struct block *next;
    char content[1500];
};

static struct block *kept;

__attribute__((noinline)) struct block *keep_one(void)
{
    struct block *block = malloc(sizeof(*block));

    block->next = kept;
    kept = block;
    return block;
}

static PyObject *take(PyObject *module, PyObject *times)
{
    for (long left = PyLong_AsLong(times); left > 0; left--)
        keep_one()->content[0] = (char)left;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"take", take, METH_O, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "python_keep", 0, -1, methods};

PyMODINIT_FUNC PyInit_python_keep(void)
{
    return PyModule_Create(&module);
}
