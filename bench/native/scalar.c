/*
 * The baseline: plain C that works one machine word at a time, as docs/formats/xbzrle.md and dirty-rate.md describe.
 * gcc -O2, no intrinsics.
 */
#include <string.h>
#include "addon.h"

typedef uint64_t word;

static inline word load(const uint8_t *at)
{
    word w;
    memcpy(&w, at, sizeof w);
    return w;
}

static inline int has_zero_byte(word w)
{
    return ((w - 0x0101010101010101u) & ~w & 0x8080808080808080u) != 0;
}

static int is_zero(const uint8_t *page, size_t page_size)
{
    for (size_t i = 0; i < page_size; i += 32) {
        if (load(page + i) | load(page + i + 8) | load(page + i + 16) | load(page + i + 24)) return 0;
    }
    return 1;
}

static uint32_t zero_scan(const uint8_t *pages, size_t page_size, size_t count, uint8_t *bitmap)
{
    uint32_t zeroes = 0;
    memset(bitmap, 0, (count + 7) / 8);
    for (size_t i = 0; i < count; i++) {
        uint32_t bit = is_zero(pages + i * page_size, page_size);
        bitmap[i / 8] |= bit << (i % 8);
        zeroes += bit;
    }
    return zeroes;
}

static int is_equal(const uint8_t *a, const uint8_t *b, size_t page_size)
{
    for (size_t i = 0; i < page_size; i += 32) {
        if ((load(a + i) ^ load(b + i)) | (load(a + i + 8) ^ load(b + i + 8)) | (load(a + i + 16) ^ load(b + i + 16)) |
            (load(a + i + 24) ^ load(b + i + 24))) {
            return 0;
        }
    }
    return 1;
}

static uint32_t compare(const uint8_t *a, const uint8_t *b, size_t page_size, size_t count, uint8_t *bitmap)
{
    uint32_t differing = 0;
    memset(bitmap, 0, (count + 7) / 8);
    for (size_t i = 0; i < count; i++) {
        uint32_t bit = !is_equal(a + i * page_size, b + i * page_size, page_size);
        bitmap[i / 8] |= bit << (i % 8);
        differing += bit;
    }
    return differing;
}

static inline size_t put_count(uint8_t *to, size_t count)
{
    if (count < 0x80) {
        to[0] = count;
        return 1;
    }
    to[0] = (count & 0x7f) | 0x80;
    to[1] = count >> 7;
    return 2;
}

static int encode(const uint8_t *old, const uint8_t *next, size_t page_size, uint8_t *out, size_t limit)
{
    size_t i = 0, d = 0;
    while (i < page_size) {
        if (d + 2 > limit) return -1;
        size_t start = i;
        while (i + 8 <= page_size && load(old + i) == load(next + i)) i += 8;
        while (i < page_size && old[i] == next[i]) i++;
        if (i - start == page_size) return 0;
        if (i == page_size) return d;
        d += put_count(out + d, i - start);

        if (d + 2 > limit) return -1;
        start = i;
        while (i + 8 <= page_size && !has_zero_byte(load(old + i) ^ load(next + i))) i += 8;
        while (i < page_size && old[i] != next[i]) i++;
        d += put_count(out + d, i - start);
        if (d + (i - start) > limit) return -1;
        memcpy(out + d, next + start, i - start);
        d += i - start;
    }
    return d;
}

/* The bytes of the count, or 0 if it has more than two. */
static inline size_t get_count(const uint8_t *from, size_t *count)
{
    if (from[0] < 0x80) {
        *count = from[0];
        return 1;
    }
    if (from[1] & 0x80) return 0;
    *count = (from[0] & 0x7f) | (size_t)from[1] << 7;
    return 2;
}

static int decode(const uint8_t *source, size_t length, uint8_t *page, size_t page_size)
{
    size_t i = 0, d = 0, count, n;
    while (i < length) {
        if (length - i < 2) return -1;
        n = get_count(source + i, &count);
        if (n == 0 || (count == 0 && i != 0)) return -1;
        i += n;
        d += count;
        if (d > page_size) return -1;

        if (length - i < 2) return -1;
        n = get_count(source + i, &count);
        if (n == 0 || count == 0) return -1;
        i += n;
        if (d + count > page_size || i + count > length) return -1;
        memcpy(page + d, source + i, count);
        d += count;
        i += count;
    }
    return d;
}

static const word P1 = 0x9e3779b185ebca87, P2 = 0xc2b2ae3d27d4eb4f, P3 = 0x165667b19e3779f9, P4 = 0x85ebca77c2b2ae63;

static inline word rotl(word w, int by)
{
    return w << by | w >> (64 - by);
}

static inline word step(word lane, word w)
{
    return rotl(lane + w * P2, 31) * P1;
}

static uint32_t hash(const uint8_t *page, size_t page_size)
{
    word v[4] = { 1 + P1 + P2, 1 + P2, 1, 1 - P1 };
    for (size_t i = 0; i < page_size; i += 32) {
        v[0] = step(v[0], load(page + i));
        v[1] = step(v[1], load(page + i + 8));
        v[2] = step(v[2], load(page + i + 16));
        v[3] = step(v[3], load(page + i + 24));
    }
    word h = rotl(v[0], 1) + rotl(v[1], 7) + rotl(v[2], 12) + rotl(v[3], 18);
    for (int i = 0; i < 4; i++) h = (h ^ step(0, v[i])) * P1 + P4;
    h += page_size;
    h = (h ^ h >> 33) * P2;
    h = (h ^ h >> 29) * P3;
    return h ^ h >> 32;
}

uint32_t crc_tables[8][256];

void fill_crc_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        crc_tables[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = crc_tables[k - 1][byte];
            crc_tables[k][byte] = crc >> 8 ^ crc_tables[0][crc & 0xff];
        }
    }
}

static uint32_t crc(const uint8_t *page, size_t page_size)
{
    uint32_t value = 0xffffffff;
    for (size_t i = 0; i < page_size; i += 8) {
        word w = load(page + i) ^ value;
        value = crc_tables[7][w & 0xff] ^ crc_tables[6][w >> 8 & 0xff] ^ crc_tables[5][w >> 16 & 0xff] ^
                crc_tables[4][w >> 24 & 0xff] ^ crc_tables[3][w >> 32 & 0xff] ^ crc_tables[2][w >> 40 & 0xff] ^
                crc_tables[1][w >> 48 & 0xff] ^ crc_tables[0][w >> 56];
    }
    return ~value;
}

const struct kernels scalar_kernels = { zero_scan, compare, encode, decode, hash, crc };
