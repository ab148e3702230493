// Both headers in C++: they compile, their functions link, and a memory answers.
#include "sparsehopfield.h"
#include "sparsehopfield_layers.h"

#include <cstdio>
#include <cstring>

int main() {
    if (sh_initialise() != SH_OK || std::strcmp(sh_version(), SH_VERSION_STRING) != 0) return 1;
    if (sh_version_number() != SH_VERSION_NUMBER) return 1;
    const float patterns[2][2] = {{1, 0}, {0, 1}}, query[2] = {0.9f, 0.2f};
    const double beta = 10;
    float state[2] = {0, 0}, twice[2] = {0, 0};
    sh_context context = {};
    sh_rows rows = {};
    rows.data = patterns;
    rows.n = rows.d = 2;
    rows.stride = sizeof patterns[0];
    rows.type = SH_FLOAT32;
    sh_model model = {};
    model.separation = SH_SPARSEMAX;
    sh_queries queries = {};
    queries.data = query;
    queries.n = 1;
    queries.beta = &beta;
    sh_memory *memory = nullptr;
    sh_status status = sh_memory_new(&context, &rows, nullptr, SH_DOT, SH_FLOAT32, &memory);
    if (status == SH_OK) status = sh_update(&context, memory, model, queries, state, nullptr);
    sh_memory_free(&context, memory);
    const float weight[2][2] = {{2, 0}, {0, 2}};
    if (status == SH_OK) status = sh_linear(&context, SH_FLOAT32, 1, 2, 2, state, weight, nullptr, twice);
    if (status != SH_OK) std::fprintf(stderr, "%s\n", sh_status_name(status));
    std::printf("C++: %g %g\n", double(twice[0]), double(twice[1]));
    return status != SH_OK || twice[0] != 2 || twice[1] != 0;
}
