/* table.c: the list of separation maps. A new map is a file beside this one and a row here. */
#include "separation/separation.h"
#include <math.h>

static const sh_map *const maps[] = {
    [SH_SPARSEMAX] = &sh_map_sparsemax,
    [SH_SOFTMAX] = &sh_map_softmax,
    [SH_ENTMAX] = &sh_map_entmax,
    [SH_POLYNOMIAL] = &sh_map_polynomial,
};

const sh_map *sh_map_of(sh_model *model) {
    if ((unsigned)model->separation >= sizeof maps / sizeof *maps) return NULL;
    if (model->separation == SH_ENTMAX) {
        if (!(model->parameter >= 1) || isinf(model->parameter)) return NULL;
        if (model->parameter == 1) return &sh_map_softmax;
        if (model->parameter == 2) return &sh_map_sparsemax;
    } else if (model->separation == SH_SPARSEMAX) {
        model->parameter = 2; /* sparsemax is 2-entmax: one convention for tau and window */
    } else if (model->separation == SH_POLYNOMIAL) {
        double order = model->parameter;
        if (!(order >= 1) || order > 0x1p31 || order != floor(order)) return NULL;
    }
    return maps[model->separation];
}
