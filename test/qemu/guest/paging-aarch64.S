/*
 * Code of our own for the tests of virtual addresses on ARM's virt: it loads the registers of translation with what the test wants,
 * switches it on, and waits. QEMU's loader puts it at 0x40100000, which the page tables must map to itself.
 *
 *  0x80   parameters, set by the test: u64 TTBR0_EL1, u64 TTBR1_EL1, u64 TCR_EL1, u64 SCTLR_EL1
 */
        .text
start:  adr     x0, parameters
        ldp     x1, x2, [x0]
        ldp     x3, x4, [x0, 16]
        msr     ttbr0_el1, x1
        msr     ttbr1_el1, x2
        msr     tcr_el1, x3
        isb
        msr     sctlr_el1, x4
        isb
1:      wfi
        b       1b
        .org    start + 0x80
parameters:
        .quad   0, 0, 0, 0
