import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readDomain } from '../../../src/read/container/domain-xml.ts';

const whole = `<?xml version='1.0'?>
<!-- <name>not this</name> -->
<domain type='kvm' id='7'>
  <name>a &amp; b</name>
  <uuid>9F4E1C55-7d4f-4c57-9c7f-0d7a30fbb9a1</uuid>
  <metadata><x:name xmlns:x='y'>nor this</x:name><memory>1</memory></metadata>
  <maxMemory slots='16' unit='GiB'>64</maxMemory>
  <memory unit='KiB'>6291456</memory>
  <currentMemory unit='MB'>4000</currentMemory>
  <os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os>
  <devices>
    <memory model='dimm'>
      <target><size unit='KiB'>1048576</size><node>0</node></target>
      <alias name='dimm0'/>
      <address type='dimm' slot='0' base='0x100000000'/>
    </memory>
    <memory model='virtio-mem'>
      <target>
        <size unit='GiB'>1</size><node>1</node><block unit='KiB'>2048</block><requested unit='KiB'>0</requested>
        <address base='0x140000000'/>
      </target>
      <alias name='virtiomem0'/>
      <address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>
    </memory>
    <memory model='nvdimm'><source><path>/x</path></source><target><size>1024</size></target></memory>
  </devices>
</domain>`;

describe('readDomain', () => {
  it('reads the facts that a stream can state', () => {
    expect(readDomain(whole)).toEqual({
      type: 'kvm',
      name: 'a & b',
      uuid: '9f4e1c557d4f4c579c7f0d7a30fbb9a1',
      machine: 'pc-q35-10.0',
      arch: 'x86_64',
      memory: 6 * 2 ** 30,
      currentMemory: 4e9,
      maxMemory: 64 * 2 ** 30,
      memoryDevices: [
        { model: 'dimm', alias: 'dimm0', size: 2 ** 30, base: 0x1_0000_0000n, slot: 0, node: 0 },
        { model: 'virtio-mem', alias: 'virtiomem0', size: 2 ** 30, base: 0x1_4000_0000n, node: 1 },
        { model: 'nvdimm', size: 1 << 20 },
      ],
    });
    expect(readDomain('<domain/>')).toEqual({ memoryDevices: [] });
  });

  it.each([
    ['', 4096],
    [" unit='b'", 4],
    [" unit='bytes'", 4],
    [" unit='KB'", 4000],
    [" unit='k'", 4096],
    [" unit='kib'", 4096],
    [" unit='MB'", 4e6],
    [" unit='M'", 2 ** 22],
    [" unit='MiB'", 2 ** 22],
    [" unit='GB'", 4e9],
    [" unit='GiB'", 2 ** 32],
    [" unit='T'", 2 ** 42],
  ])('reads <memory%s>4</memory> as %d bytes', (attribute, bytes) => {
    expect(readDomain(`<domain><memory${attribute}>4</memory></domain>`).memory).toBe(bytes);
  });

  it.each<[string, string, RegExp]>([
    ['XML that is not closed', "<domain type='kvm'><name>a</name>", /not well-formed: Missing end tag for .* domain/],
    ['elements that overlap', '<domain><name></domain></name>', /not well-formed: Missing end tag for element name/],
    ['two roots', '<domain/><domain/>', /not well-formed/],
    ['an unknown entity', '<domain><name>&a;</name></domain>', /not well-formed: Named entity isn't defined/],
    ['NUL', '<domain><name>\0</name></domain>', /not well-formed/],
    ['no XML', 'QEVM', /not well-formed/],
    ['nothing', '', /not well-formed/],
    ['another document', '<network/>', /expected the XML of a domain, got the element <network>/],
    ['elements nested deeply', '<a>'.repeat(1 << 18), /nested too deeply/],
    ['more than libvirt accepts', ' '.repeat(1 << 23), /at most 4194304 characters/],
    ['an unknown unit', "<domain><memory unit='kibi'>4</memory></domain>", /size such as 4 GiB in <memory>.*"4 kibi"/],
    ['a malformed size', '<domain><memory>4K</memory></domain>', /in <memory>.*"4K KiB"/],
    ['a size that is too large', "<domain><memory unit='EiB'>99</memory></domain>", /in <memory>.*"99 EiB"/],
    ['a malformed UUID', '<domain><uuid>9f4e</uuid></domain>', /expected a UUID.*"9f4e"/],
  ])('refuses %s', (_, xml, message) => {
    expect(() => readDomain(xml)).toThrow(RangeError);
    expect(() => readDomain(xml)).toThrow(message);
  });

  it('refuses every XML that breaks off', () => {
    for (let length = 0; length < whole.length - 1; length++) {
      expect(() => readDomain(whole.slice(0, length))).toThrow(RangeError);
    }
  });

  it('reads or refuses any text', () => {
    fc.assert(
      fc.property(fc.nat(whole.length), fc.string(), (at, text) => {
        try {
          readDomain(whole.slice(0, at) + text + whole.slice(at + text.length));
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
      }),
    );
  });
});
