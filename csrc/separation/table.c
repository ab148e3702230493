/* table.c: the table of separation maps, by sh_separation. A new map is a file beside this one, a number there and a line
 * here. */
#include "separation/separation.h"
#include <math.h>

#define MAPS(DO)                                                                                                       \
    DO(SH_SPARSEMAX, sparsemax)                                                                                        \
    DO(SH_SOFTMAX, softmax)                                                                                            \
    DO(SH_ENTMAX, entmax)                                                                                              \
    DO(SH_POLYNOMIAL, polynomial)                                                                                      \
    DO(SH_NORMMAX, normmax)

#define DECLARE(number, name) extern const sh_map sh_map_##name;
#define ROW(number, name) [number] = &sh_map_##name,
MAPS(DECLARE)
static const sh_map *const maps[] = {MAPS(ROW)};

const sh_map *sh_map_numbered(int number) {
    return number >= 0 && (size_t)number < sizeof maps / sizeof *maps ? maps[number] : NULL;
}

int sh_parameter_fits(const sh_parameter *p, double x) {
    return x >= p->least && x <= p->most && !(p->above && x == p->least) && !(p->whole && x != floor(x));
}

const sh_map *sh_map_of(sh_model *model) {
    const sh_map *map = sh_map_numbered((int)model->separation);
    if (!map) return NULL;
    if (!map->parameter.name)
        model->parameter = map->parameter.standard;
    else if (!sh_parameter_fits(&map->parameter, model->parameter))
        return NULL;
    const sh_map *special = map->special_case ? map->special_case(model->parameter) : NULL;
    return special ? special : map;
}
