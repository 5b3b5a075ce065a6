/* The functions of each baseline that addon.c calls: one batch over the memory that the WASM kernels also use. */
#ifndef VMFERRY_BENCH_ADDON_H
#define VMFERRY_BENCH_ADDON_H
#include <stddef.h>
#include <stdint.h>

struct kernels {
    uint32_t (*zero_scan)(const uint8_t *pages, size_t page_size, size_t count, uint8_t *bitmap);
    uint32_t (*compare)(const uint8_t *a, const uint8_t *b, size_t page_size, size_t count, uint8_t *bitmap);
    /* The encoding's length, 0 if the pages are equal, -1 if it would exceed the limit. */
    int (*encode)(const uint8_t *old, const uint8_t *next, size_t page_size, uint8_t *out, size_t limit);
    /* The end of the last literal, or a negative code. */
    int (*decode)(const uint8_t *source, size_t length, uint8_t *page, size_t page_size);
    uint32_t (*hash)(const uint8_t *page, size_t page_size);
    uint32_t (*crc)(const uint8_t *page, size_t page_size);
};

extern const struct kernels scalar_kernels;
extern const struct kernels narrow_kernels;
extern const struct kernels native_kernels;
void fill_crc_tables(void);
extern uint32_t crc_tables[8][256];
#endif
