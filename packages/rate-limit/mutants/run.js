// Makes each mistake of mutants.js in a copy of this package, runs the tests that should notice, and names the one that does.
// `npm run mutants -w packages/rate-limit [-- words of a name]`. Needs a build (`npm run build`). The work tree is only read.
import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { startRedis } from '@keygate/local'
import { Redis } from 'ioredis'
import { mutants } from './mutants.js'
import { firstFailure } from './tap-output.js'

const root = resolve(import.meta.dirname, '../../..')
const room = 'packages/rate-limit'
const deadlineMs = 300_000

const work = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-mutants-'))
process.on('exit', () => { rmSync(work, { recursive: true, force: true }) })
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130))

const redis = await startRedis()
const client = new Redis(redis.url)

/** A repository with this package alone, on the real one's modules. */
function makeCopy (name) {
  const copy = join(work, name)
  for (const path of ['src', 'test', 'package.json', 'tsconfig.json']) cpSync(join(root, room, path), join(copy, room, path), { recursive: true })
  cpSync(join(root, 'tsconfig.json'), join(copy, 'tsconfig.json'))
  writeFileSync(join(copy, 'package.json'), '{ "type": "module" }')
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  return copy
}

/** Runs a program to its end, or to the deadline. */
async function execute (args, cwd) {
  const child = spawn(process.execPath, args, { cwd, env: { ...process.env, KEYGATE_DECISIONS: '4000', TAP_BAIL: '1', TS_NODE_TRANSPILE_ONLY: '1' }, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  let late = false
  child.stdout.on('data', chunk => { output += chunk })
  child.stderr.on('data', chunk => { output += chunk })
  const timer = setTimeout(() => { late = true; child.kill('SIGKILL') }, deadlineMs)
  const code = await new Promise(resolve => child.on('close', resolve))
  clearTimeout(timer)
  return { code, output, late }
}

const typescriptLoader = join(root, 'node_modules/@tapjs/typescript/dist/esm/import.mjs')
const runTest = async (copy, test) => await execute([`--import=file://${typescriptLoader}`, '--conditions=@keygate/source', '--enable-source-maps', join(room, 'test', `${test}.test.ts`)], copy)

const withScript = ['src/decide-script.ts', 'src/versions.ts']
const scriptText = /(?<=defineScript\(`)(?:[^`$]|\$(?!\{))*(?=`\))/

/** What TypeScript's compiler says of the package. */
async function typeFault (copy) {
  const { code, output } = await execute([join(root, 'node_modules/typescript/bin/tsc'), '-p', join(copy, room), '--noEmit', '--composite', 'false', '--incremental', 'false'], copy)
  return code === 0 ? undefined : output.trim().split('\n')[0]
}

/** What Redis says of the package's scripts. */
async function scriptFault (copy) {
  for (const file of withScript) {
    const text = scriptText.exec(readFileSync(join(copy, room, file), 'utf8'))?.[0]
    if (text === undefined) return `no script in ${file}`
    try {
      await client.script('LOAD', text)
    } catch (error) { return error.message }
  }
}

/** Outside of a script's text: only then TypeScript has something to say. */
const changesTypes = edits => edits.some(([file, from]) => !withScript.includes(file) || !scriptText.exec(readFileSync(join(root, room, file), 'utf8'))?.[0].includes(from))
const compileFault = async (copy, edits) => await scriptFault(copy) ?? (changesTypes(edits) ? await typeFault(copy) : undefined)

/** Changes the copy, and gives back the way to undo it. */
function apply (copy, edits) {
  const before = new Map()
  const undo = () => { for (const [path, text] of before) writeFileSync(path, text) }
  for (const [file, from, to] of edits) {
    const path = join(copy, room, file)
    const text = readFileSync(path, 'utf8')
    const found = text.split(from).length - 1
    if (found !== 1) {
      undo()
      throw new Error(`does not apply: its text stands ${found} times in ${file}: ${from.trim()}`)
    }
    if (!before.has(path)) before.set(path, text)
    writeFileSync(path, text.replace(from, () => to))
  }
  return undo
}

/** One line of the table: by which test the mutant was killed, or what is wrong. */
async function judge (copy, { edits, tests }) {
  let undo
  try {
    undo = apply(copy, edits)
    const fault = await compileFault(copy, edits)
    if (fault !== undefined) return { fault: `does not compile: ${fault}` }
    for (const test of tests) {
      const { code, output, late } = await runTest(copy, test)
      if (late) return { fault: `${test}: not done after ${deadlineMs / 1000} s` }
      if (code === 0) continue
      const failure = firstFailure(output)
      if (failure.fault !== undefined) return { fault: `${test}: ${failure.fault}` }
      return { killedBy: `${test}: ${failure.test}` }
    }
    return { fault: 'SURVIVED' }
  } catch (error) {
    return { fault: error.message }
  } finally {
    undo?.()
  }
}

async function main () {
  const words = process.argv.slice(2)
  const chosen = mutants.filter(({ name }) => words.every(word => name.includes(word)))
  const copies = [makeCopy('a'), makeCopy('b')]
  const wrong = await scriptFault(copies[0]) ?? await typeFault(copies[0])
  if (wrong !== undefined) throw new Error(`without any mutant the package does not compile: ${wrong}`)
  for (const test of new Set(chosen.flatMap(({ tests }) => tests))) {
    const { code, output } = await runTest(copies[0], test)
    if (code !== 0) throw new Error(`without any mutant ${test} fails: ${JSON.stringify(firstFailure(output))}\n${output.slice(-2000)}`)
  }
  const results = new Map()
  const queue = [...chosen]
  await Promise.all(copies.map(async copy => {
    for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
      const result = await judge(copy, mutant)
      results.set(mutant.name, result)
      console.error(`${results.size}/${chosen.length} ${result.fault === undefined ? 'killed' : 'FAULT '}  ${mutant.name}`)
    }
  }))
  const width = Math.max(...chosen.map(({ name }) => name.length))
  for (const { name } of chosen) console.log(`${name.padEnd(width)}  ${results.get(name).killedBy ?? `>>> ${results.get(name).fault}`}`)
  const faults = chosen.filter(({ name }) => results.get(name).fault !== undefined).length
  console.log(`\n${chosen.length} mutants, ${chosen.length - faults} killed by an assertion${faults > 0 ? `, ${faults} NOT` : ''}`)
  return faults > 0 || chosen.length === 0 ? 1 : 0
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
} finally {
  client.disconnect()
  await redis.stop()
}
