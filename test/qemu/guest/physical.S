/*
 * Our BIOS for the tests of guest-physical memory: it starts all CPUs, sets the registers of each to different values,
 * marks RAM, and halts.
 *
 * physical.bin is a 64 KiB -bios image, seen at 0xf0000 and below 4 GiB; all code runs there.
 *
 *      0  start of the other CPUs (SIPI vector 0xf0)
 *  0xffe0 parameters, set by the test: u8 mode (0: 32-bit protected, 1: long), u8 number of other CPUs
 *  0xfff0 reset vector
 *
 * RAM that it writes:
 *
 *   0x07000  number of running other CPUs
 *   0x10000  page tables: PML4, PDPT, 8 page directories of 2 MiB pages for 8 GiB
 *   0xa0000  up to 0xeffff, with the shadow RAM switched on: each word holds its address; the chipset stays so. With a
 *            VGA, addresses below 0xc0000 are its memory or go through its registers
 *   every 16 MiB from 16 MiB on, as far as RAM extends according to the CMOS (in protected mode: below 4 GiB): the
 *            address ^ 0x5af35af3, as 64 bits
 *
 * Then it sends 'R', 0, 0, 0, 0 on COM1, and CPU number n (by its local APIC) halts with registers that
 * physical-guest.ts predicts.
 */
        .set    BASE, 0xf0000
        .set    COM1, 0x3f8
        .set    APIC, 0xfee00000
        .set    TABLES, 0x10000
        .set    MARK, 0x5af35af3

        .text
        .code16
start:                                  /* of the other CPUs, at f000:0000 */
        cli
        jmp     enter
        .org    start + 0x10
bsp:    cli
enter:  cld
        movw    $0xf000, %ax
        movw    %ax, %ds
        lgdtl   gdtr - start
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $8, $(flat - start + BASE)

        .code32
flat:   movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    %ax, %fs
        movw    %ax, %gs
        movl    APIC + 0x20, %ebx
        shrl    $24, %ebx               /* ebx = number of this CPU, kept */
        testl   %ebx, %ebx
        jz      first
        lock
        incl    0x7000
        jmp     switch

/* ---- the first CPU */
first:  movl    $0x80000000, %eax       /* which chipset: PAM1 is 0x5a or 0x91 */
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movw    $0xcfc, %dx
        inl     %dx, %eax
        movl    $0x5a, %esi
        cmpl    $0x12378086, %eax
        je      1f
        movl    $0x91, %esi
1:      movl    $6, %ecx                /* PAM1 to PAM6: RAM, readable and writable */
2:      movl    %esi, %eax
        andl    $0xfc, %eax
        orl     $0x80000000, %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movl    %esi, %edx
        andl    $3, %edx
        addl    $0xcfc, %edx
        movb    $0x33, %al
        outb    %al, %dx
        incl    %esi
        loop    2b
        movl    $0xa0000, %edi          /* each word its address */
3:      movl    %edi, (%edi)
        addl    $4, %edi
        cmpl    $0xf0000, %edi
        jb      3b

        movl    $TABLES, %edi           /* page tables */
        xorl    %eax, %eax
        movl    $(10 * 1024), %ecx
        rep     stosl
        movl    $(TABLES + 0x1003), TABLES
        movl    $(TABLES + 0x2003), %eax
        movl    $(TABLES + 0x1000), %edi
        movl    $8, %ecx
4:      movl    %eax, (%edi)
        addl    $8, %edi
        addl    $0x1000, %eax
        loop    4b
        movl    $(TABLES + 0x2000), %edi
        movl    $0x83, %eax             /* present, writable, 2 MiB */
        xorl    %edx, %edx
        movl    $(8 * 512), %ecx
5:      movl    %eax, (%edi)
        movl    %edx, 4(%edi)
        addl    $8, %edi
        addl    $0x200000, %eax
        adcl    $0, %edx
        loop    5b

        movl    $0, 0x7000
        movzbl  parameters - start + BASE + 1, %esi
        testl   %esi, %esi
        jz      switch
        movl    $0x1ff, APIC + 0xf0
        movl    $0xc4500, APIC + 0x300  /* INIT to all others, then SIPI twice */
        movl    $1000, %ecx
6:      inb     $0x80, %al
        loop    6b
        movl    $0xc46f0, APIC + 0x300
        movl    $1000, %ecx
7:      inb     $0x80, %al
        loop    7b
        movl    0x7000, %eax
        cmpl    %esi, %eax
        jae     switch
        movl    $0xc46f0, APIC + 0x300
8:      pause
        movl    0x7000, %eax
        cmpl    %esi, %eax
        jb      8b

/* ---- all CPUs: into long mode, if requested */
switch: movb    parameters - start + BASE, %al
        testb   %al, %al
        jz      protected
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax
        movl    %eax, %cr0
        ljmpl   $0x18, $(long - start + BASE)

protected:
        testl   %ebx, %ebx
        jnz     10f
        movl    $0x1000000, %edi        /* marks below 4 GiB */
        movb    $0x34, %al
        outb    %al, $0x70
        inb     $0x71, %al
        movzbl  %al, %ecx
        movb    $0x35, %al
        outb    %al, $0x70
        inb     $0x71, %al
        movzbl  %al, %edx
        shll    $8, %edx
        orl     %edx, %ecx
        shll    $16, %ecx
        addl    $0x1000000, %ecx        /* ecx = end of RAM below 4 GiB */
        jmp     2f
1:      movl    %edi, %eax
        xorl    $MARK, %eax
        movl    %eax, (%edi)
        movl    $0, 4(%edi)
        addl    $0x1000000, %edi
2:      cmpl    %ecx, %edi
        jb      1b
        movl    $(10f - start + BASE), %esp
        jmp     ready
10:     movl    %ebx, %edx              /* registers of 32 bits, all with the CPU's number */
        leal    0xa0000000(%edx), %eax
        leal    0xb0000000(%edx), %ebx
        leal    0xc0000000(%edx), %ecx
        leal    0x51000000(%edx), %esi
        leal    0xd1000000(%edx), %edi
        leal    0xbb000000(%edx), %ebp
        leal    0x55000000(%edx), %esp
        movl    %eax, %cr2
        orl     $0xd0000000, %edx
        stc
11:     hlt
        jmp     11b

/* reports that all is ready; returns to esp */
ready:  movl    $5, %ecx
        movb    $'R', %ah
1:      movw    $COM1 + 5, %dx
        inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        movw    $COM1, %dx
        movb    %ah, %al
        outb    %al, %dx
        xorb    %ah, %ah
        loop    1b
        jmp     *%esp

        .code64
long:   testl   %ebx, %ebx
        jnz     10f
        movl    $0x1000000, %edi
        movb    $0x34, %al
        outb    %al, $0x70
        inb     $0x71, %al
        movzbl  %al, %ecx
        movb    $0x35, %al
        outb    %al, $0x70
        inb     $0x71, %al
        movzbl  %al, %edx
        shll    $8, %edx
        orl     %edx, %ecx
        shll    $16, %ecx
        addl    $0x1000000, %ecx
        jmp     2f
1:      movq    %rdi, %rax
        xorq    $MARK, %rax
        movq    %rax, (%rdi)
        addq    $0x1000000, %rdi
2:      cmpq    %rcx, %rdi
        jb      1b
        xorl    %ecx, %ecx              /* and from 4 GiB on: 24 bits of 64 KiB */
        movb    $0x5d, %al
        outb    %al, $0x70
        inb     $0x71, %al
        movb    %al, %cl
        shll    $8, %ecx
        movb    $0x5c, %al
        outb    %al, $0x70
        inb     $0x71, %al
        movb    %al, %cl
        shll    $8, %ecx
        movb    $0x5b, %al
        outb    %al, $0x70
        inb     $0x71, %al
        movb    %al, %cl
        shlq    $16, %rcx
        movabsq $0x100000000, %rdi
        addq    %rdi, %rcx
        jmp     4f
3:      movq    %rdi, %rax
        xorq    $MARK, %rax
        movq    %rax, (%rdi)
        addq    $0x1000000, %rdi
4:      cmpq    %rcx, %rdi
        jb      3b
        movl    $5, %ecx
        movb    $'R', %ah
5:      movw    $COM1 + 5, %dx
        inb     %dx, %al
        testb   $0x20, %al
        jz      5b
        movw    $COM1, %dx
        movb    %ah, %al
        outb    %al, %dx
        xorb    %ah, %ah
        loop    5b
10:     movl    $0xc0000100, %ecx       /* the bases of fs and gs, and the kernel's gs */
11:     movl    $0x7f00, %edx
        leal    (%rbx, %rcx), %eax
        andl    $0x0fffffff, %eax
        wrmsr
        incl    %ecx
        cmpl    $0xc0000102, %ecx
        jbe     11b
        movabsq $0x0101010101010101, %rax
        movq    %rax, %r15
        imulq   %rbx, %r15              /* r15 = the number in each byte */
        movabsq $0xa000000000000000, %rax
        addq    %r15, %rax
        movq    %rax, %cr2
        movabsq $0xc000000000000000, %rcx
        addq    %r15, %rcx
        movabsq $0xd000000000000000, %rdx
        addq    %r15, %rdx
        movabsq $0x5100000000000000, %rsi
        addq    %r15, %rsi
        movabsq $0xd100000000000000, %rdi
        addq    %r15, %rdi
        movabsq $0xbb00000000000000, %rbp
        addq    %r15, %rbp
        movabsq $0x5500000000000000, %rsp
        addq    %r15, %rsp
        movabsq $0x0800000000000000, %r8
        addq    %r15, %r8
        movabsq $0x0900000000000000, %r9
        addq    %r15, %r9
        movabsq $0x1000000000000000, %r10
        addq    %r15, %r10
        movabsq $0x1100000000000000, %r11
        addq    %r15, %r11
        movabsq $0x1200000000000000, %r12
        addq    %r15, %r12
        movabsq $0x1300000000000000, %r13
        addq    %r15, %r13
        movabsq $0x1400000000000000, %r14
        addq    %r15, %r14
        movabsq $0xb000000000000000, %rbx
        addq    %r15, %rbx
        stc
12:     hlt
        jmp     12b

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      /* accessed already, so that the CPU does not write here */
        .quad   0x00cf93000000ffff
        .quad   0x00af9b000000ffff
gdtr:   .word   gdtr - gdt - 1
        .long   gdt - start + BASE

        .org    start + 0xffe0
parameters:
        .byte   0, 0
        .org    start + 0xfff0
        .code16
        ljmp    $0xf000, $(bsp - start)
        .org    start + 0x10000
