/*
 * Our guest: a program that writes its RAM only on command, over COM1.
 *
 * guest.bin, 4096 bytes, starts in two ways:
 *
 *      0  boot sector      firmware loads it to 0x7c00; it loads the rest of the image to 0x8000
 *    512  program          linked at 0x8000; 16-bit start, then 32-bit flat, unpaged, interrupts off
 *   3840  BIOS tail        guest.bin at the end of a 64 KiB -bios image: copies the program to 0x8000
 *   4080  reset vector
 *
 * The program keeps its state in registers (dr0..dr3 hold the arguments, mm0..mm3 the ballast) and uses no stack: every
 * write without a command would dirty a page that the test does not expect. So `esp` serves as link register.
 *
 * It runs `invlpg` before it writes a page: QEMU 7.2 under TCG misses a write through a TLB entry that is older than
 * the last dirty sync. (A sync between two writes to one page can still be missed.)
 *
 * A command is one byte and four 32-bit little-endian words: FIRST page, COUNT of pages, KIND, VALUE.
 * The answer, sent when the command is done, is one byte and a 32-bit word:
 *
 *   'F'  fill pages FIRST.. with KIND, seed VALUE             'K', 0
 *   'D'  dirty them in way KIND, VALUE rounds                 'K', rounds done
 *        VALUE 0: until 'S'; answered at once                 'K', 0
 *   'S'  stop dirtying                                        'K', rounds done
 *   'B'  ballast: from now on rewrite these pages again and   'K', 0
 *        again, so that there is always something dirty;
 *        COUNT 0: no more
 *   'C'  count the rounds done so far, go on dirtying         'K', rounds done
 *   other                                                     '?', 0
 *
 * KIND of 'F': 0 zero, 1 same byte, 2 text, 3 pseudo-random, 4 stripes of 16 pages of each.
 * KIND of 'D': 0 few bytes, 1 rewrite, 2 rewrite and zero in turn, 3 mixed by page number, 4 touch (same content),
 *              5 every other byte; KIND >> 8 is a pause after each page, in reads of port 0x80.
 * guest.ts implements the same in TypeScript, so that a test can predict every byte.
 */
        .set    LOAD, 0x8000
        .set    COM1, 0x3f8
        .set    LSR,  COM1 + 5

        .text
/* ---------------------------------------------------------------- boot sector, at 0x7c00 */
        .code16
boot:
        cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        sti
        movw    $0x0207, %ax            /* read 7 sectors ... */
        movw    $0x0002, %cx            /* from cylinder 0, sector 2 */
        xorb    %dh, %dh                /* head 0, drive as given in dl */
        movw    $LOAD, %bx
        int     $0x13
        jc      1f
        ljmp    $0, $LOAD
1:      hlt
        jmp     1b
        .org    boot + 510
        .word   0xaa55

/* ---------------------------------------------------------------- program, at LOAD */
        .set    DELTA, LOAD - 512       /* symbol + DELTA = address at run time */
program:
        cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        inb     $0x92, %al              /* A20 on */
        orb     $2, %al
        andb    $0xfe, %al
        outb    %al, $0x92
        lgdtw   gdtr + DELTA
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmp    $8, $(flat + DELTA)

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff       /* accessed already, so that the CPU does not write here */
        .quad   0x00cf93000000ffff
gdtr:   .word   gdtr - gdt - 1
        .long   gdt + DELTA

        .code32
/* reads a byte from COM1 into al; spoils edx */
        .macro  getc
9:      movl    $LSR, %edx
        inb     %dx, %al
        testb   $1, %al
        jz      9b
        movl    $COM1, %edx
        inb     %dx, %al
        .endm

/* reads a little-endian word into ecx; spoils eax, edx */
        .macro  getl
        .rept   4
        getc
        movb    %al, %cl
        rorl    $8, %ecx
        .endr
        .endm

/* writes cl to COM1; spoils eax, edx */
        .macro  putc
9:      movl    $LSR, %edx
        inb     %dx, %al
        testb   $0x20, %al
        jz      9b
        movl    $COM1, %edx
        movb    %cl, %al
        outb    %al, %dx
        .endm

/* calls a routine that ends in ret0; esp is the link */
        .macro  call0 routine
        movl    $(8f + DELTA), %esp
        jmp     \routine
8:
        .endm
        .macro  ret0
        jmp     *%esp
        .endm

/* rewrites a page of the ballast, if there is any: mm0 = first address, mm1 = end or 0, mm2 = current, mm3 = seed; keeps
   edi and ebp, spoils the rest */
        .macro  ballast_page
        movd    %mm1, %eax
        testl   %eax, %eax
        jz      7f
        movd    %edi, %mm4
        movd    %mm2, %edi
        movd    %mm3, %ebx
        incl    %ebx
        movd    %ebx, %mm3
        movb    $3, %al
        call0   fill_page
        movd    %mm1, %eax
        cmpl    %eax, %edi
        jb      6f
        movd    %mm0, %edi
6:      movd    %edi, %mm2
        movd    %mm4, %edi
7:
        .endm

flat:   movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $COM1 + 1, %dx          /* no interrupts, 115200 8n1, FIFO on */
        xorb    %al, %al
        outb    %al, %dx
        movw    $COM1 + 3, %dx
        movb    $0x80, %al
        outb    %al, %dx
        movw    $COM1, %dx
        movb    $1, %al
        outb    %al, %dx
        movw    $COM1 + 1, %dx
        xorb    %al, %al
        outb    %al, %dx
        movw    $COM1 + 3, %dx
        movb    $3, %al
        outb    %al, %dx
        movw    $COM1 + 2, %dx
        movb    $7, %al
        outb    %al, %dx
        xorl    %ebp, %ebp
        pxor    %mm1, %mm1
        pxor    %mm3, %mm3
        xorl    %edi, %edi              /* edi = 0: no dirtying is going on */
        movb    $'R', %cl               /* ready */
        jmp     answer

/* ---- waiting */
idle:   ballast_page
        pause
        movl    $LSR, %edx
        inb     %dx, %al
        testb   $1, %al
        jz      idle
command:
        getc
        movzbl  %al, %ebx
        cmpb    $'S', %bl
        je      count
        cmpb    $'C', %bl
        je      count
        getl
        shll    $12, %ecx
        movl    %ecx, %dr0              /* dr0 = first address */
        getl
        shll    $12, %ecx
        movl    %dr0, %eax
        addl    %eax, %ecx
        movl    %ecx, %dr1              /* dr1 = end address */
        getl
        movl    %ecx, %dr2              /* dr2 = kind */
        getl
        movl    %ecx, %dr3              /* dr3 = value */
        cmpb    $'F', %bl
        je      fill
        cmpb    $'D', %bl
        je      dirty
        cmpb    $'B', %bl
        je      ballast
        movb    $'?', %cl
        xorl    %ebp, %ebp
        xorl    %edi, %edi
        jmp     answer

/* 'S' and 'C' carry their four words too; they are read and dropped */
count:  getl
        getl
        getl
        getl
        movb    $'K', %cl
        cmpb    $'C', %bl
        je      answer_and_go_on
        xorl    %edi, %edi

/* ---- answers cl, ebp and waits */
answer: putc
        movl    %ebp, %ecx
        .rept   4
        putc
        shrl    $8, %ecx
        .endr
        jmp     idle

/* ---- answers cl, ebp and continues to dirty, if it was dirtying */
answer_and_go_on:
        putc
        movl    %ebp, %ecx
        .rept   4
        putc
        shrl    $8, %ecx
        .endr
        testl   %edi, %edi
        jz      idle
        jmp     dirty_page

/* ---- 'B' */
ballast:
        xorl    %edi, %edi
        xorl    %ebp, %ebp
        movl    %dr0, %eax
        movl    %dr1, %ecx
        movd    %eax, %mm0
        movd    %eax, %mm2
        subl    %ecx, %eax
        jnz     1f
        xorl    %ecx, %ecx
1:      movd    %ecx, %mm1
        movb    $'K', %cl
        jmp     answer

/* ---- 'F' */
fill:   movl    %dr0, %edi
1:      movl    %dr1, %eax
        cmpl    %eax, %edi
        jae     2f
        movl    %dr2, %eax
        movl    %dr3, %ebx
        call0   fill_page
        jmp     1b
2:      xorl    %ebp, %ebp
        xorl    %edi, %edi
        movb    $'K', %cl
        jmp     answer

/* fills the page at edi with kind al, seed ebx, and moves edi past it; spoils eax, ebx, ecx, edx, esi */
fill_page:
        invlpg  (%edi)
        movl    %edi, %esi
        shrl    $12, %esi               /* esi = page number */
        cmpb    $4, %al
        jne     1f
        movl    %esi, %eax
        shrl    $4, %eax
        andb    $3, %al
1:      movl    $1024, %ecx
        cmpb    $1, %al
        je      2f
        cmpb    $2, %al
        je      3f
        cmpb    $3, %al
        je      5f
        xorl    %eax, %eax
        rep     stosl
        ret0
2:      leal    (%ebx, %esi), %eax      /* same byte: (seed + page) | 1 */
        orb     $1, %al
        movzbl  %al, %eax
        imull   $0x01010101, %eax, %eax
        rep     stosl
        ret0
3:      shll    $6, %esi                /* text: 64 lines of 64, each starts with its number in hex */
        xorl    %esi, %ebx
33:     movl    %edi, %eax
        shrl    $6, %eax
        andl    $63, %eax
        addl    %ebx, %eax
        movl    $8, %ecx
4:      roll    $4, %eax
        movl    %eax, %esi
        andl    $15, %esi
        movb    digits + DELTA(%esi), %dl
        movb    %dl, (%edi)
        incl    %edi
        loop    4b
        movl    $(line + DELTA), %esi
        movl    $14, %ecx
        rep     movsl
        testl   $0xfff, %edi
        jnz     33b
        ret0
5:      imull   $0x9e3779b1, %esi, %eax /* pseudo-random: xorshift32 from (page * golden) ^ seed | 1 */
        xorl    %ebx, %eax
        orl     $1, %eax
6:      movl    %eax, %edx
        shll    $13, %edx
        xorl    %edx, %eax
        movl    %eax, %edx
        shrl    $17, %edx
        xorl    %edx, %eax
        movl    %eax, %edx
        shll    $5, %edx
        xorl    %edx, %eax
        stosl
        loop    6b
        ret0

/* ---- 'D': edi = current page, ebp = rounds done */
dirty:  xorl    %ebp, %ebp
        movl    %dr0, %edi
        movl    %dr3, %eax
        testl   %eax, %eax
        jnz     dirty_page
        movb    $'K', %cl
        jmp     answer_and_go_on

dirty_page:
        invlpg  (%edi)
        movl    %edi, %esi
        shrl    $12, %esi               /* esi = page number */
        movl    %dr2, %eax
        cmpb    $3, %al
        jne     1f
        movl    %esi, %eax              /* mixed: 0 rewrite, 1 zero in turn, 2 touch, 3 every other byte, 4..7 few bytes */
        andl    $7, %eax
        movb    mixed + DELTA(%eax), %al
1:      cmpb    $1, %al
        je      3f
        cmpb    $2, %al
        je      2f
        cmpb    $4, %al
        je      4f
        cmpb    $5, %al
        je      5f
        /* few bytes: a word of the round at (page * 20 + round * 52) mod 4096, one more in the last byte */
        leal    (%esi, %esi, 4), %eax
        shll    $2, %eax
        imull   $52, %ebp, %ecx
        addl    %ecx, %eax
        andl    $0xffc, %eax
        leal    1(%ebp), %ecx
        imull   $0x01000193, %ecx, %ecx
        movl    %ecx, (%edi, %eax)
        incb    4095(%edi)
        jmp     page_done
2:      leal    (%esi, %ebp), %eax      /* zero when page + round is odd, else rewritten */
        testb   $1, %al
        jz      3f
        movb    $0, %al
        jmp     33f
3:      movb    $3, %al
33:     leal    1(%ebp), %ebx           /* pseudo-random of seed round + 1 */
        call0   fill_page
        subl    $4096, %edi
        jmp     page_done
4:      lock
        orl     $0, (%edi)              /* same content, but written */
        jmp     page_done
5:      movl    $2048, %ecx
6:      incb    -1(%edi, %ecx, 2)
        loop    6b
page_done:
        movl    %dr2, %ecx
        shrl    $8, %ecx
        jz      2f
1:      inb     $0x80, %al
        loop    1b
2:      addl    $4096, %edi
        movl    %dr1, %eax
        cmpl    %eax, %edi
        jb      3f
        movl    %dr0, %edi
        incl    %ebp
        movl    %dr3, %eax
        cmpl    %eax, %ebp              /* never equal when VALUE is 0 */
        jne     3f
        xorl    %edi, %edi
        movb    $'K', %cl
        jmp     answer
3:      ballast_page
        movl    $LSR, %edx
        inb     %dx, %al
        testb   $1, %al
        jz      dirty_page
        jmp     command

mixed:  .byte   1, 2, 4, 5, 0, 0, 0, 0
digits: .ascii  "0123456789abcdef"
line:   .ascii  " the ferry leaves at dawn and carries every page across\n"
        .if     . - line - 56
        .error  "a line must be 56 bytes"
        .endif

/* ---------------------------------------------------------------- BIOS tail, at f000:ff00 */
        .org    boot + 3840
        .code16
        cli
        cld
        movw    $0xf000, %ax
        movw    %ax, %ds
        xorw    %ax, %ax
        movw    %ax, %es
        movw    $0xf200, %si            /* the program, in the image */
        movw    $LOAD, %di
        movw    $3328, %cx
        rep     movsb
        ljmp    $0, $LOAD
        .org    boot + 4080
        ljmp    $0xf000, $0xff00
        .org    boot + 4096
