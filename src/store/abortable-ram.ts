/** RAM content and VMs that refuse reads once a signal is aborted. */
import { type Abortable, orAborted } from '../io/abort.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { WritableVm } from '../vm/saved-vm.ts';

/** Returns the content with reads that a signal can end. */
export function abortableRam(ram: RamReader, { signal }: Abortable): RamReader {
  if (signal === undefined) return ram;
  return {
    blocks: ram.blocks,
    state: (block, page) => ram.state(block, page),
    ...(ram.isAbsent === undefined ? {} : { isAbsent: (block, page) => ram.isAbsent?.(block, page) === true }),
    ...(ram.absentPages === undefined ? {} : { absentPages: (block) => ram.absentPages?.(block) ?? 0 }),
    ...(ram.willRead === undefined ? {} : { willRead: (block, first, end) => ram.willRead?.(block, first, end) }),
    async read(block, page, target) {
      signal.throwIfAborted();
      return orAborted(ram.read(block, page, target), signal);
    },
    async nextData(block, page, limit) {
      signal.throwIfAborted();
      return orAborted(ram.nextData(block, page, limit), signal);
    },
    close: () => ram.close(),
  };
}

/** Returns a VM with such RAM. It keeps the VM's other properties. */
export function abortableVm(vm: WritableVm, options: Abortable): WritableVm {
  if (options.signal === undefined) return vm;
  return Object.create(vm, { ram: { value: abortableRam(vm.ram, options) } });
}
