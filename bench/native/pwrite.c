/*
 * pwrite RAM OUT: writes the nonzero pages of a raw RAM image to their places in a new file, starting 1 MiB in,
 * neighbours together in runs of up to 1 MiB, and syncs: the minimum cost of writing a mapped-ram file. The image is
 * mapped, so finding zeros copies nothing. For bench/ alone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, RUN = 1 << 20, ORIGIN = 1 << 20 };

static int is_zero(const char *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

int main(int argc, char **argv)
{
    struct stat stat;
    if (argc != 3) return 2;
    int in = open(argv[1], O_RDONLY);
    int out = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (in < 0 || out < 0 || fstat(in, &stat) != 0) return perror(argv[1]), 1;
    char *ram = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED, in, 0);
    if (ram == MAP_FAILED) return perror("mmap"), 1;
    madvise(ram, stat.st_size, MADV_SEQUENTIAL);
    for (off_t at = 0; at < stat.st_size; at += PAGE) {
        if (is_zero(ram + at)) continue;
        off_t end = at + PAGE;
        while (end < stat.st_size && end - at < RUN && !is_zero(ram + end)) end += PAGE;
        if (pwrite(out, ram + at, end - at, ORIGIN + at) != end - at) return perror(argv[2]), 1;
        at = end - PAGE;
    }
    if (ftruncate(out, ORIGIN + stat.st_size) != 0 || fsync(out) != 0) return perror(argv[2]), 1;
    return 0;
}
