/*
 * Our BIOS for the tests of virtual addresses: it loads CR4, EFER, CR3 and CR0 with what the test wants, and halts. The page
 * tables are already in RAM, put there by QEMU's loader. They must map the page of this code, 0xfffff000, to itself.
 *
 * paging.bin is a 4 KiB -bios image below 4 GiB.
 *
 *  0xfe0  parameters, set by the test: u32 CR3, u32 CR4, u32 EFER, u32 CR0
 *  0xff0  reset vector
 */
        .set    BASE, 0xfffff000

        .text
        .code16
start:  cli
        movw    %cs, %ax
        movw    %ax, %ds
        lgdtl   %cs:(gdtr - start + 0xf000)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $8, $(flat - start + BASE)

        .code32
flat:   movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movl    BASE + cr4 - start, %eax
        movl    %eax, %cr4
        movl    BASE + efer - start, %eax
        testl   %eax, %eax
        jz      1f
        movl    $0xc0000080, %ecx
        xorl    %edx, %edx
        wrmsr
1:      movl    BASE + cr3 - start, %eax
        movl    %eax, %cr3
        movl    BASE + cr0 - start, %eax
        movl    %eax, %cr0
        jmp     2f
2:      hlt
        jmp     2b

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9a000000ffff      /* flat code */
        .quad   0x00cf92000000ffff      /* flat data */
gdtr:   .word   gdtr - gdt - 1
        .long   BASE + gdt - start

        .org    start + 0xfe0
cr3:    .long   0
cr4:    .long   0
efer:   .long   0
cr0:    .long   0
        .org    start + 0xff0
        .code16
        jmp     start
        .org    start + 0x1000
