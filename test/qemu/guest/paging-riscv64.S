/*
 * Code of our own for the tests of virtual addresses on RISC-V's virt: it goes to supervisor mode with the satp that the test wants,
 * and waits. QEMU's loader puts it at the beginning of RAM, 0x80000000, which the page tables must map to itself.
 *
 *  0x80   parameter, set by the test: u64 satp
 */
        .text
        .option norvc
start:  li      t0, -1                  /* all memory may be used */
        csrw    pmpaddr0, t0
        li      t0, 0x1f
        csrw    pmpcfg0, t0
        li      t0, 0x1800              /* MPP: supervisor */
        csrc    mstatus, t0
        li      t0, 0x800
        csrs    mstatus, t0
        auipc   t0, 0
        ld      t1, 0x80 - 0x28(t0)     /* the parameter */
        csrw    satp, t1
        sfence.vma
        auipc   t0, 0
        addi    t0, t0, 0x10            /* waits */
        csrw    mepc, t0
        mret
1:      wfi
        j       1b
        .org    start + 0x80
parameter:
        .quad   0
