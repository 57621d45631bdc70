/** Databases as JSON: what a fixture is, and how it becomes a database again. Bytes are `{"$bytes": "…"}`, in base64. */

export interface Dump {
  version: number;
  stores: Record<string, DumpedStore>;
}

interface DumpedStore {
  keyPath: string | string[] | null;
  indexes: Record<string, { keyPath: string | string[]; unique: boolean }>;
  rows: unknown[];
}

/** Everything in a database. */
export async function dump(name: string): Promise<Dump> {
  const database = await done(indexedDB.open(name));
  const stores: Record<string, DumpedStore> = {};
  for (const storeName of database.objectStoreNames) {
    const store = database.transaction(storeName).objectStore(storeName);
    const rows = (await done(store.getAll())) as unknown[];
    const indexes = [...store.indexNames].map((each) => store.index(each));
    stores[storeName] = {
      keyPath: store.keyPath,
      indexes: Object.fromEntries(indexes.map(({ name: own, keyPath, unique }) => [own, { keyPath: keyPath, unique }])),
      rows: rows.map(toJson),
    };
  }
  database.close();
  return { version: database.version, stores };
}

/** Make a database of this name. */
export async function load(name: string, { version, stores }: Dump): Promise<void> {
  const opening = indexedDB.open(name, version);
  opening.onupgradeneeded = (): void => {
    for (const [storeName, { keyPath, indexes, rows }] of Object.entries(stores)) {
      const store = opening.result.createObjectStore(storeName, { keyPath });
      for (const [own, each] of Object.entries(indexes)) {
        store.createIndex(own, each.keyPath, { unique: each.unique });
      }
      for (const row of rows) store.put(fromJson(row));
    }
  };
  (await done(opening)).close();
}

export function done<Result>(request: IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    request.onsuccess = (): void => {
      resolve(request.result);
    };
    request.onerror = (): void => {
      reject(request.error ?? new Error("failed"));
    };
  });
}

function toJson(value: unknown): unknown {
  if (value instanceof Uint8Array) return { $bytes: btoa(String.fromCharCode(...value)) };
  if (Array.isArray(value)) return value.map(toJson);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, toJson(each)]));
}

function fromJson(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(fromJson);
  if (typeof value !== "object" || value === null) return value;
  if ("$bytes" in value) return Uint8Array.from(atob(String(value.$bytes)), (unit) => unit.charCodeAt(0));
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, fromJson(each)]));
}
