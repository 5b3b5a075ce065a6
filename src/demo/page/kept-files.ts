/**
 * Keeps the open files over a reload, in IndexedDB: dropped files as handles where the browser has them, and small files as copies.
 * A record belongs to a tab. A tab holds a lock, so the next start removes the records of tabs that were closed.
 */

type Kept = File | FileSystemFileHandle;

/** What one tab had open. */
interface KeptRecord {
  tab: string;
  /** The entry of the tab's history that opened the files. */
  entry: string;
  items: Kept[];
}

/** The most bytes of files that are kept as copies. */
const maxCopied = 64 << 20;
const [database, store] = ['vmferry', 'open-files'];
const lockOf = (tab: string) => `vmferry-tab-${tab}`;

const tab = tabId();
// The browser releases the lock when the page goes away.
void navigator.locks?.request(lockOf(tab), () => new Promise(() => {})).catch(() => {});
void removeLeftovers();

/** Keeps files instead of those before. `handles` has the handle of each file, where there is one. */
export async function keepFiles(
  entry: string,
  files: readonly File[],
  handles: readonly (FileSystemFileHandle | undefined)[] = [],
): Promise<void> {
  // Without locks, nothing would ever remove them.
  if (navigator.locks === undefined) return;
  const items = files.map((file, i) => handles[i] ?? file);
  const copied = items.reduce((sum, item) => sum + (item instanceof File ? item.size : 0), 0);
  if (copied > maxCopied) return forgetFiles();
  await change((records) => records.put({ tab, entry, items } satisfies KeptRecord));
}

export async function forgetFiles(): Promise<void> {
  await change((records) => records.delete(tab));
}

/** What the tab kept for an entry of its history. Undefined if there is nothing. */
export async function keptFor(entry: string): Promise<readonly Kept[] | undefined> {
  const found = await change<KeptRecord>((records) => records.get(tab));
  return found?.entry === entry ? found.items : undefined;
}

/** The files themselves. Undefined if the browser must ask the user first, which needs a click: `isClick`. */
export async function readKept(items: readonly Kept[], isClick: boolean): Promise<File[] | undefined> {
  const files: File[] = [];
  try {
    for (const item of items) {
      if (item instanceof File) files.push(item);
      else if (await isAllowed(item, isClick)) files.push(await item.getFile());
      else return undefined;
    }
    return files;
  } catch {
    // A file was moved or removed.
    return undefined;
  }
}

type Permissions = Record<'queryPermission' | 'requestPermission', (mode: { mode: 'read' }) => Promise<string>>;

async function isAllowed(handle: FileSystemFileHandle, isClick: boolean): Promise<boolean> {
  const permissions = handle as FileSystemFileHandle & Permissions;
  if ((await permissions.queryPermission({ mode: 'read' })) === 'granted') return true;
  return isClick && (await permissions.requestPermission({ mode: 'read' })) === 'granted';
}

/** Removes the records of tabs that were closed. */
async function removeLeftovers(): Promise<void> {
  if (navigator.locks === undefined) return;
  const { held = [] } = await navigator.locks.query();
  const open = new Set(held.map(({ name }) => name));
  const tabs = (await change<IDBValidKey[]>((records) => records.getAllKeys())) ?? [];
  for (const each of tabs) {
    if (each !== tab && !open.has(lockOf(String(each)))) await change((records) => records.delete(each));
  }
}

/** One request in a transaction of its own. Undefined if the browser keeps nothing (private windows, full disks). */
function change<Result>(work: (records: IDBObjectStore) => IDBRequest): Promise<Result | undefined> {
  return new Promise((resolve) => {
    try {
      const opening = indexedDB.open(database, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore(store, { keyPath: 'tab' });
      opening.onerror = () => resolve(undefined);
      opening.onsuccess = () => {
        const { result: opened } = opening;
        const transaction = opened.transaction(store, 'readwrite');
        const end = (result: Result | undefined) => {
          opened.close();
          resolve(result);
        };
        const request = work(transaction.objectStore(store));
        transaction.oncomplete = () => end(request.result as Result);
        transaction.onabort = () => end(undefined);
      };
    } catch {
      resolve(undefined);
    }
  });
}

/** A name for this tab that survives a reload. */
function tabId(): string {
  const key = 'vmferry-tab';
  const made = `${performance.timeOrigin}-${Math.random()}`;
  try {
    const known = sessionStorage.getItem(key) ?? made;
    sessionStorage.setItem(key, known);
    return known;
  } catch {
    return made;
  }
}
