/* lanes.c: compiled once per instruction set; types and widths of vectors from lanes_real.h. */
#ifndef SH_VARIANT
#define SH_VARIANT base
#endif
#include "kernels/lanes.h"
#include "kernels/vectors.h"
#include <float.h>
#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#define REGISTERS 32
#define WIDTH 64
#define R float
#define I int32_t
#define S f32x16
#define COUNT 16
#include "kernels/lanes_real.h"
#define R double
#define I int64_t
#define S f64x8
#define COUNT 8
#include "kernels/lanes_real.h"
#undef WIDTH
#endif

#if defined(__AVX2__)
#ifndef REGISTERS
#define REGISTERS 16
#endif
#define WIDTH 32
#define R float
#define I int32_t
#define S f32x8
#define COUNT 8
#include "kernels/lanes_real.h"
#define R double
#define I int64_t
#define S f64x4
#define COUNT 4
#include "kernels/lanes_real.h"
#undef WIDTH
#endif

#if defined(__AVX512F__)
#define TABLES                                                                                                         \
    {                                                                                                                  \
        {&sh_lanes_f32x16, &sh_lanes_f64x8}, { &sh_lanes_f32x8, &sh_lanes_f64x4 }                                      \
    }
#elif defined(__AVX2__)
#define TABLES                                                                                                         \
    {                                                                                                                  \
        {&sh_lanes_f32x8, &sh_lanes_f64x4}, { &sh_lanes_f32x8, &sh_lanes_f64x4 }                                       \
    }
#else
#ifdef SH_NEON
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#define WIDTH 16
#define R float
#define I int32_t
#define S f32x4
#define COUNT 4
#include "kernels/lanes_real.h"
#define R double
#define I int64_t
#define S f64x2
#define COUNT 2
#include "kernels/lanes_real.h"
#define TABLES                                                                                                         \
    {                                                                                                                  \
        {&sh_lanes_f32x4, &sh_lanes_f64x2}, { &sh_lanes_f32x4, &sh_lanes_f64x2 }                                       \
    }
#endif

extern const sh_lane_tables SH_CAT(sh_lanes_, SH_VARIANT);
const sh_lane_tables SH_CAT(sh_lanes_, SH_VARIANT) = TABLES;
