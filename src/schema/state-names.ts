/**
 * Names of device states (`vmsd_name`), as the output of -dump-vmstate has them. Found with QEMU 7.2.22 and 10.0.2: their
 * dumps for all targets, compared with files that the same QEMUs saved of all machines.
 */

const split = (text: string): ReadonlySet<string> => new Set(text.split(',').map((name) => name.trim()));

/**
 * States of device types. The dump of a QEMU that has the device lists its state. So a QEMU does not have a device whose
 * state is in this set, but not in its dump.
 */
export const listedStates: ReadonlySet<string> = split(`
  ADM1266, ADM1272, Astro, DPS310, Dino, EMC141X, Elroy, I440FX, ICH9LPC, IOSB, LM8323, LSM303DLHC_MAG, Lasi,
  PCA9552, PCA9554, PCIDevice, PCIHost, PIIX3, PIIX4, SCSIDevice, SWIM, TMP105, TMP421, a10.pic, a10.pit,
  a9-scu, ac97, acpi-erst, acpi-ged, adb_kbd, adb_mouse, allwinner-a10-ccm, allwinner-a10-dramc,
  allwinner-ahci, allwinner-cpucfg, allwinner-h3-ccu, allwinner-h3-dramc, allwinner-h3-sysctrl,
  allwinner-r40-ccu, allwinner-r40-dramc, allwinner-rtc, allwinner-sdhost, allwinner-sid, allwinner-sramc,
  allwinner-sun8i-emac, allwinner-wdt, allwinner.i2c, allwinner.spi, allwinner_emac, amd-iommu,
  apple-sound-chip, arm.cortex-a9-global-timer, arm_gic, arm_gicv3, arm_gicv3_its, arm_mptimer,
  armsse-cpu-pwrctrl, armsse-mhu, armv7m, armv7m_nvic, armv7m_systick, artist, aspeed-mmi, aspeed.adc,
  aspeed.gpio, aspeed.hace, aspeed.i2c, aspeed.i3c, aspeed.lpc, aspeed.new-vic, aspeed.rtc, aspeed.sbc,
  aspeed.scu, aspeed.sdhci, aspeed.sdmc, aspeed.smc, aspeed.timerctrl, aspeed.xdma, axp2xx_pmu, bcm2835-aux,
  bcm2835-cprman, bcm2835-cprman-clock-mux, bcm2835-cprman-dsi0hsck-mux, bcm2835-cprman-pll,
  bcm2835-cprman-pll-channel, bcm2835-dma, bcm2835-fb, bcm2835-i2c, bcm2835-ic, bcm2835-mbox, bcm2835-otp,
  bcm2835-powermgt, bcm2835-property, bcm2835-rng, bcm2835-sdhost, bcm2835-spi, bcm2835_gpio,
  bcm2835_sys_timer, bcm2835_thermal, bcm2836-control, bcm2838_gpio, bochs-display, cadence.sdhci,
  cadence_TTC, cadence_gem, cadence_uart, ccid-card-passthru, cirrus_vga, cmsdk-apb-dualtimer,
  cmsdk-apb-timer, cmsdk-apb-uart, cmsdk-apb-watchdog, corgi-ssp, cs4231a, ctucan_pci, cuda, dbdma,
  designware-pcie-host, designware-pcie-root, digic-uart, digic.timer, djMEMC, dm163, dma, dp8393x, dpcd,
  ds1338, dwc2, e1000, e1000e, ehci, ehci-sysbus, es1370, escc, etraxfs, exynos4210.clk, exynos4210.combiner,
  exynos4210.fimd, exynos4210.i2c, exynos4210.mct, exynos4210.pmu, exynos4210.pwm, exynos4210.rng,
  exynos4210.rtc, exynos4210.uart, fdc, fsl-imx8m-pcie-phy, ftgmac100, fw_cfg, goldfish_pic, goldfish_rtc,
  goldfish_tty, gpex_root, gpio-key, gus, hda-audio, heathrow_pic, highbank-regs, hpet, hv-syndbg, i.MX RNGC,
  i2c-ddc, i6300esb_wdt, i82374, i8254, i8259, i82596, i82801b11_bridge, ib700_wdt, ibex-spi, ibex-timer,
  ibex-uart, ich9_ahci, ich9_smb, icp_control, icp_pic, ics, igb, imx-gpcv2, imx.avic, imx.epit, imx.fec,
  imx.gpio, imx.i2c, imx.serial, imx.spi, imx.usbphy, imx2.wdt, imx25.ccm, imx25.gpt, imx31.ccm, imx6.ccm,
  imx6.src, imx6ul.ccm, imx7.analog, imx7.ccm, imx7.snvs, imx7.src, imx8mp.analog, imx8mp.ccm, integratorcm,
  intel-hda, ioapic, ioh-3240-express-root-port, iommu-intel, iotkit, iotkit-secctl, iotkit-sysctl, ipl,
  ipmi-interface-pci-bt, ipmi-interface-pci-kcs, ipoctal232, ivshmem-doorbell, ivshmem-plain, kvaser_pci,
  kvm-tpr-opt, kvmclock, l2x0, lan9118, lan9118-phy, lasips2, led, loongarch.extioi, loongarch_ipi,
  loongarch_pch_pic, loongson_ipi, ls7a_rtc, lsiscsi, m25p80, m48t59, m68k-irqc, macfb-nubus, macfb-sysbus,
  macio-newworld, macio-oldworld, macio_gpio, macio_nvram, mainstone_fpga, max111x, max31785, max34451,
  max7310, mc146818rtc, mch, mchp.pfsoc.uart, megasas, megasas-gen2, menelaus, microbit.i2c, microdrive,
  mioe3680_pci, mmio-ide, mos6522, mpc-i2c, mpc8xxx_gpio, mphi, mps2-fpgaio, mps2-scc, mptsas, msf2-emac,
  msf2-sysreg, mss-spi, mss-timer, musicpal_gpio, musicpal_key, musicpal_lcd, mv88w8618_audio, mv88w8618_eth,
  mv88w8618_flashcfg, mv88w8618_pic, mv88w8618_pit, nand, ne2000, next-kbd, next-pc, next-rtc, next-scsi,
  nios2-vic, npcm-clk, npcm-gcr, npcm-gmac, npcm-pcs, npcm-pspi, npcm7xx-adc, npcm7xx-clk,
  npcm7xx-clock-divider, npcm7xx-clock-pll, npcm7xx-clock-sel, npcm7xx-emc, npcm7xx-fiu, npcm7xx-gcr,
  npcm7xx-gpio, npcm7xx-mft-module, npcm7xx-otp, npcm7xx-pwm-module, npcm7xx-rng, npcm7xx-smbus,
  npcm7xx-timer-ctrl, npcm7xx.sdhci, nrf51_soc.gpio, nrf51_soc.nvm, nrf51_soc.rng, nrf51_soc.timer,
  nrf51_soc.uart, nvme, ohci, openpic, or-irq, or1k-ompic, parallel_isa, pc87312, pci-diva-serial, pci-i82378,
  pci-serial, pci-serial-multi, pci_bridge, pcie-pci-bridge, pcie-root-port, pciespscsi, pckbd, pckbd-mmio,
  pcm3680i_pci, pcnet, pcspk, pflash_cfi01, piix4_pm, pl011, pl022_ssp, pl031, pl041, pl050, pl061, pl080,
  pl110, pl181, pl190, pl330, platform, pmu, port92, ppc-uic, ppc4xx_pci, ppce500_pci, prep_systemio, ps2kbd,
  ps2mouse, pvpanic-pci, pvscsi, pxa2xx-fir, pxa2xx-gpio, pxa2xx-mmci, pxa2xx-ssp, pxa2xx_dma, pxa2xx_i2c,
  pxa2xx_pic, pxa2xx_rtc, pxa2xx_timer, q800-glue, q800-via1, q800-via2, qemu-s390-flic, qxl, ramfb-dev,
  raven, realview_sysctl, renesas-sci, riscv-iommu, riscv.sifive.uart, riscv_aplic, riscv_imsic, riscv_mtimer,
  riscv_sifive_plic, rocker, rs5c372, rs6000-mc, rtl8139, rx-cmt, rx-icu, rx-tmr, sb16, sbsa-gwdt,
  sclpconsole, sclplmconsole, sclpquiesce, scoop, scsi-disk, sd-card, sdhci, serial, sifive-pwm,
  sifive_soc.gpio, sii9022, sl-nand, sm501, smbus-eeprom, smbus-ipmi, smc91c111, smmuv3, sp804, spapr-xive,
  spapr/rtc, spapr_llan, spapr_nvram, spapr_pci, spapr_vscsi, spapr_vty, spapr_watchdog, spitz-keyboard,
  spitz-lcdtg, ssd0303_oled, ssd0323_oled, sse-counter, sse-timer, ssi_sd, stellaris_adc, stellaris_enet,
  stellaris_gptm, stellaris_i2c, stellaris_sys, stm32.rcc, stm32f2xx-adc, stm32f2xx-spi, stm32f2xx-timer,
  stm32f4xx-exti, stm32f4xx-syscfg, stm32l4x5-exti, stm32l4x5-gpio, stm32l4x5-rcc, stm32l4x5-rcc-clock-mux,
  stm32l4x5-rcc-pll, stm32l4x5-syscfg, stm32l4x5-usart-base, strongarm-gpio, strongarm-ppc, strongarm-rtc,
  strongarm-ssp, strongarm-uart, strongarm_pic, sungem, sunhme, sysbus-ahci, sysbus-sm501, sysbusespscsi,
  tpci200, tpm-crb, tpm-spapr, tpm-tis, tpm-tis-i2c, tulip, tz-mpc, tz-msc, tz-ppc, u2f-key, u2f-key-passthru,
  uefi-vars-sysbus, ufs, uhci, usb-audio, usb-ccid, usb-dwc3, usb-host, usb-hub, usb-kbd, usb-mtp, usb-net,
  usb-ptr, usb-redir, usb-serial, usb-storage, usb-uas, usb-wacom, versatile-pci, versatilepb_sic,
  vfio-amd-xgbe, vfio-ap, vfio-calxeda-xgmac, vfio-ccw, vfio-platform, vga, vhost-user-blk, vhost-user-device,
  vhost-user-fs, vhost-user-gpio, vhost-user-i2c, vhost-user-input, vhost-user-rng, vhost-user-scmi,
  vhost-user-snd, vhost-user-vsock, vhost-vdpa-device, via-isa, virt-ctrl, virtio-9p, virtio-balloon,
  virtio-blk, virtio-console, virtio-crypto, virtio-gpu, virtio-input, virtio-input-host, virtio-iommu,
  virtio-mem, virtio-net, virtio-rng, virtio-scsi, virtio-sound-device, virtio-vga, virtio-vhost_scsi,
  virtio-vhost_vsock, vmbus-bridge, vmclock, vmcoreinfo, vmgenid, vmmouse, vmstate-event-facility,
  vmstate_aspeed_wdt, vmstate_diag288, vmware_vga, vmxnet3, vt82c686b_pm, wm8750, x-terminal3270, xen_evtchn,
  xen_gnttab, xen_overlay, xen_xenstore, xgmac, xhci, xhci-sysbus, xilinx_spi, xilinx_spips,
  xio3130-express-downstream-port, xio3130-express-upstream-port, xive-source, xive-tctx, xlnx,bbram-ctrl,
  xlnx,versal-crl, xlnx,versal-efuse, xlnx,zynqmp-efuse, xlnx-cframe-reg, xlnx-versal-cfu-apb,
  xlnx-versal-cfu-fdro, xlnx-versal-cfu-sfr, xlnx-versal-crl, xlnx-versal-efuse, xlnx-zynmp.rtc,
  xlnx-zynqmp-efuse, xlnx.apu-ctrl, xlnx.bbram-ctrl, xlnx.cframe-bcast-reg, xlnx.csu_dma, xlnx.dpdma,
  xlnx.pmu_io_intc, xlnx.v-dp, xlnx.versal-canfd, xlnx.versal-ospi, xlnx.versal-pmc-iou-slcr,
  xlnx.versal-trng, xlnx.versal-usb2-ctrl-regs, xlnx.versal-xramc, xlnx.zdma, xlnx.zynqmp-can,
  xlnx.zynqmp_crf, xlnx.zynqmp_ipi, xlnx_zynq_devcfg, xlnx_zynqmp_qspips, zpci, zynq-xadc, zynq_slcr
`);

/** States that machines and devices register themselves. No dump lists them, or that of one version does not. */
export const unlistedStates: ReadonlySet<string> = split(`
  PCIBUS, acpi_build, adb_bus, ads7846, aer915, apic, arm_timer, cpu, cpu_common, eeprom, globalstate,
  i2c_bus, i82550, i82551, i82557a, i82557b, i82557c, i82558a, i82558b, i82559a, i82559b, i82559c, i82559er,
  i82562, i82801, icp/server, ide, ipmi-bmc-extern, ipmi-bmc-sim, ipmi-interface, ipmi-interface-isa-bt,
  isa-ide, onenand, or1k_timer, pxa2xx_cm, pxa2xx_i2s, pxa2xx_keypad, pxa2xx_lcdc, pxa2xx_mm, pxa2xx_pm, rtc,
  s390_css, server, slirp, spapr, spapr_cpu, spapr_iommu, stellaris_gamepad, timer, tsc2005, tsc2102, tsc2301,
  virt_acpi_build, virtio-mem-device-early, zipit-lcd
`);
