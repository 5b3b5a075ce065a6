/** RAM content, and VMs, that cannot be read any more once a signal is aborted. */
import { type Abortable, orAborted } from '../io/abort.ts';
import type { RamReader } from '../vm/ram-store.ts';
import type { WritableVm } from '../vm/saved-vm.ts';

/** The content, with reads that a signal ends. */
export function abortableRam(ram: RamReader, { signal }: Abortable): RamReader {
  if (signal === undefined) return ram;
  return {
    blocks: ram.blocks,
    state: (block, page) => ram.state(block, page),
    ...(ram.isAbsent === undefined ? {} : { isAbsent: (block, page) => ram.isAbsent?.(block, page) === true }),
    ...(ram.absentPages === undefined ? {} : { absentPages: (block) => ram.absentPages?.(block) ?? 0 }),
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

/** A VM whose RAM is read in that way. It keeps the VM's other properties. */
export function abortableVm(vm: WritableVm, options: Abortable): WritableVm {
  if (options.signal === undefined) return vm;
  return Object.create(vm, { ram: { value: abortableRam(vm.ram, options) } });
}
