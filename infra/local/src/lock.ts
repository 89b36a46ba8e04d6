import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { isAlive, startOf } from './leftover.ts'

interface Holder { pid: number, start: string | undefined }

/**
 * Takes the lock, or tells which process holds it. A lock whose process is gone (SIGKILL leaves it behind) is taken over;
 * the moment at which a process started tells it from a later one of the same number.
 */
export function takeLock (file: string): { release: () => void } | { heldBy: number } {
  mkdirSync(dirname(file), { recursive: true })
  const mine = `${file}.${process.pid}`
  writeFileSync(mine, JSON.stringify({ pid: process.pid, start: startOf(process.pid) } satisfies Holder))
  try {
    for (;;) {
      try {
        linkSync(mine, file) // appears with its content, or not at all
        return { release: () => rmSync(file, { force: true }) }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      }
      const seen = read(file)
      const holder = parse(seen)
      if (holder !== undefined && isAlive(holder.pid) && startOf(holder.pid) === holder.start) return { heldBy: holder.pid }
      removeStale(file, seen)
    }
  } finally {
    rmSync(mine, { force: true })
  }
}

// Two starts may see the same stale lock. Only one of them can rename it; and who renames a lock that was taken meanwhile puts it back.
function removeStale (file: string, seen: string | undefined): void {
  const aside = `${file}.stale-${process.pid}`
  try {
    renameSync(file, aside)
  } catch {
    return
  }
  if (read(aside) !== seen) try { linkSync(aside, file) } catch {}
  rmSync(aside, { force: true })
}

function read (file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

function parse (text = ''): Holder | undefined {
  try {
    return JSON.parse(text) as Holder
  } catch {
    return undefined
  }
}
