import { fork, type ChildProcess } from 'node:child_process'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CatalogueError, type Api, type Operation } from '@keygate/api-catalog'
import type { PublishedTexts } from '../docs/published-texts.ts'
import type { LoadedCatalogue } from './loaded-catalogue.ts'

/** What the reader tells: an API without its operations, these a slice at a time, its texts; and at last how it ended. */
export type ReaderMessage = { api: Api } | { operations: Operation[] } | { published: PublishedTexts } | { isDone: true } | { faults: string[] } | { failure: string }

export interface LoadApartOptions {
  /** Most memory for what is read and made of it, MiB. By default 1024, and at most half of what this process may still take. */
  maxHeapMb?: number | undefined
  /** How long it may take. Default 120 000. */
  timeoutMs?: number | undefined
  /** What is run, with which of node's own flags. By default the program beside this file, with those of this process's flags that `readerFlags` keeps. */
  program?: { file: string, execArgv: string[] } | undefined
}

const defaultMaxHeapMb = 1024
const defaultTimeoutMs = 120_000

/** Of this file's own kind, built or a source; and it finds its parts and trusts servers as this process does. */
function ownProgram (): { file: string, execArgv: string[] } {
  return { file: fileURLToPath(new URL(`catalogue-reader${extname(import.meta.url)}`, import.meta.url)), execArgv: readerFlags(process.execArgv) }
}

/**
 * Reads a catalogue in a process of its own, while this one goes on answering.
 *
 * A process and not a thread: when a thread has no memory left inside JSON.parse, or wherever else V8 cannot stop it, the whole process
 * ends (seen with Node 20); and so nothing that a document holds can harm the gateway.
 *
 * @throws {CatalogueError} with all faults at once. @throws {Error} when the reader was not started, died or took too long: the catalogue
 *   may be whole. It says why, and what to do.
 */
export async function loadApart (file: string, { maxHeapMb = heapLimit(), timeoutMs = defaultTimeoutMs, program = ownProgram() }: LoadApartOptions = {}): Promise<LoadedCatalogue> {
  const child = fork(program.file, [file], {
    // Buffers travel as they are.
    serialization: 'advanced',
    execArgv: [...program.execArgv, `--max-old-space-size=${maxHeapMb}`],
    // eslint-disable-next-line n/no-process-env -- no setting is read here: they are kept from the reader
    env: withoutSettings(process.env),
    stdio: ['ignore', 'ignore', 'pipe', 'ipc']
  })
  let isLate = false
  const timer = setTimeout(() => { isLate = true; child.kill('SIGKILL') }, timeoutMs)
  try {
    return await receive(child, file, ended => {
      if (isLate) return `it was not read within ${timeoutMs} ms. Check that its documents are of a sensible size and that their servers answer.`
      if (ended.isOutOfMemory) return `it needs more than ${maxHeapMb} MiB of memory. Split its documents, or leave out what is not needed, such as examples.`
      return `the process that read it ended without a word (${ended.how}). See whether this machine has memory left.`
    })
  } finally {
    clearTimeout(timer)
    child.kill('SIGKILL')
  }
}

interface Ended { how: string, isOutOfMemory: boolean }

async function receive (child: ChildProcess, file: string, reasonOf: (ended: Ended) => string): Promise<LoadedCatalogue> {
  const apis: Api[] = []
  const published: PublishedTexts[] = []
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { said = (said + text).slice(-10_000) })
  return await new Promise((resolve, reject) => {
    child.on('error', (error: Error) => {
      reject(new Error(`the process that reads it could not be started (${error.message}). See whether this machine has processes, files and memory left, and node where it was.`))
    })
    child.once('close', (code, signal) => {
      reject(new Error(reasonOf({ how: signal ?? `exit code ${code}`, isOutOfMemory: said.includes('heap out of memory') || said.includes('heap limit') })))
    })
    child.on('message', (message: ReaderMessage) => {
      if ('api' in message) apis.push(message.api)
      else if ('operations' in message) apis.at(-1)?.operations.push(...message.operations.map(deepFreeze))
      else if ('published' in message) published.push(message.published)
      else if ('faults' in message) reject(new CatalogueError(file, message.faults))
      else if ('failure' in message) reject(new Error(message.failure))
      else resolve({ catalogue: deepFreeze({ apis }), published })
    })
  })
}

/** Half of the memory that may still be taken: the other half is the gateway's. */
function heapLimit (): number {
  return Math.max(64, Math.min(defaultMaxHeapMb, Math.floor(process.availableMemory() / 2 / 2 ** 20)))
}

/** Flags of node that decide how modules are found and which servers are trusted: these alone, and those that have a value. */
const plainFlags = /^--(?:no-)?(?:enable-source-maps|preserve-symlinks(?:-main)?|(?:experimental-)?(?:strip-types|transform-types|require-module|detect-module|import-meta-resolve)|use-(?:openssl|bundled|system)-ca|openssl-(?:legacy-provider|shared-config)|(?:enable|force)-fips|tls-m(?:in|ax)-v1\.\d|network-family-autoselection)$/
const flagsWithValue = /^(?:-r|-C|--(?:import|require|loader|experimental-loader|conditions|experimental-default-type|experimental-specifier-resolution|openssl-config|tls-cipher-list|dns-result-order|max-http-header-size))$/

/**
 * Of a process's own flags for node (`process.execArgv`) those that the reader needs. Any other stays here: what watches or bounds this very
 * process, and `--env-file`, which would give the reader the gateway's secrets again.
 */
export function readerFlags (execArgv: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < execArgv.length; i++) {
    const flag = execArgv[i] as string
    const [written = ''] = flag.split('=', 1)
    const name = written.startsWith('--') ? written.replaceAll('_', '-') : written // node takes either
    if (plainFlags.test(name)) kept.push(flag)
    if (!flagsWithValue.test(name)) continue // an argument that is no flag is the value of one that is left out
    kept.push(flag)
    const next = execArgv[i + 1]
    if (written === flag && next !== undefined) { kept.push(next); i++ }
  }
  return kept
}

/** The reader needs none of the gateway's settings, and so it is not given its secrets. */
function withoutSettings (env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !/^(?:KEYGATE_|REDIS_)/.test(name)))
}

function deepFreeze<T> (value: T): T {
  if (value === null || typeof value !== 'object' || Object.isFrozen(value)) return value
  Object.freeze(value)
  for (const member of Object.values(value)) deepFreeze(member)
  return value
}
