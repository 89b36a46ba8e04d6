// Makes a clone ready: packages, then the build. Runs before node_modules exists, so it is plain JavaScript on Node's own modules.
// Called by npm start, npm run demo and npm test; prints nothing when there is nothing to do.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, linkSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'

const root = resolve(import.meta.dirname ?? new URL('.', import.meta.url).pathname, '../..')
const state = join(root, '.keygate')

/** Something that the user can put right; printed without a stack. */
class Refusal extends Error {}

function checkNode () {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  if (major > 20 || (major === 20 && minor >= 19)) return
  throw new Refusal(`Keygate needs Node 20.19 or newer; this is ${process.versions.node}. Install a newer one (https://nodejs.org), then start again.`)
}

async function install () {
  const lockfile = join(root, 'package-lock.json')
  const stamp = join(root, 'node_modules/.keygate-installed')
  const wanted = createHash('sha256').update(readFileSync(lockfile)).digest('hex')
  if (readText(stamp) === wanted) return
  // Installed by hand: npm's own record is younger than the lockfile.
  const record = join(root, 'node_modules/.package-lock.json')
  const byHand = !existsSync(stamp) && existsSync(record) && statSync(record).mtimeMs >= statSync(lockfile).mtimeMs
  if (!byHand) {
    const npm = process.env.npm_execpath?.endsWith('.js') ? [process.execPath, process.env.npm_execpath] : ['npm']
    await step('Installing packages (once, about a minute)', [...npm, 'ci', '--ignore-scripts', '--no-audit', '--no-fund'],
      'The packages could not be installed. Is the npm registry reachable?')
  }
  writeFileSync(stamp, wanted)
}

async function build () {
  const projects = referencedProjects()
  for (const project of projects) removeTwins(project)
  const stamp = join(state, 'built')
  const wanted = fingerprint(projects)
  if (readText(stamp) === wanted && projects.every(isComplete)) return
  for (const project of projects) {
    // tsc -b looks at its notes, not at the output: without the notes it writes again what somebody removed
    if (!isComplete(project)) rmSync(join(project, 'tsconfig.tsbuildinfo'), { force: true })
  }
  rmSync(stamp, { force: true })
  await step('Building', [process.execPath, join(root, 'node_modules/typescript/bin/tsc'), '-b', ...projects], 'The build failed.')
  mkdirSync(state, { recursive: true })
  writeFileSync(stamp, wanted)
}

/** The rooms that are compiled; their tests are checked by `npm run build`, but run from source. */
function referencedProjects () {
  const { references } = JSON.parse(readFileSync(join(root, 'tsconfig.json'), 'utf8'))
  return references.map(({ path }) => join(root, path)).filter(dir => !dir.endsWith('/test') && existsSync(join(dir, 'src')))
}

/** A compiled file whose source is gone still runs: it is removed. */
function removeTwins (project) {
  const dist = join(project, 'dist')
  for (const file of filesIn(dist)) {
    const source = relative(dist, file).replace(/\.(js|d\.ts)(\.map)?$/, '.ts')
    if (source.endsWith('.ts') && !existsSync(join(project, 'src', source))) rmSync(file)
  }
}

function isComplete (project) {
  const src = join(project, 'src')
  return filesIn(src).filter(file => /(?<!\.d)\.ts$/.test(file))
    .every(file => existsSync(join(project, 'dist', relative(src, file).replace(/\.ts$/, '.js'))))
}

/** Changes when a file that the compiler reads is changed, added or removed. Times and sizes: reading them takes milliseconds. */
function fingerprint (projects) {
  const own = projects.flatMap(project => [...filesIn(join(project, 'src')), join(project, 'tsconfig.json'), join(project, 'package.json')])
  const hash = createHash('sha256')
  for (const file of [...own.sort(), join(root, 'tsconfig.json'), join(root, 'package-lock.json')]) {
    const { mtimeMs, size } = statSync(file)
    hash.update(`${relative(root, file)} ${mtimeMs} ${size}\n`)
  }
  return hash.digest('hex')
}

function filesIn (dir) {
  if (!existsSync(dir)) return []
  return readdirSync(dir, { withFileTypes: true, recursive: true })
    .filter(entry => entry.isFile()).map(entry => join(entry.parentPath ?? entry.path, entry.name))
}

/** Runs a command behind one line that ends with the seconds it took; its output is shown only when it fails. */
async function step (label, [command, ...args], fault) {
  process.stdout.write(`${label} ... `)
  const begin = Date.now()
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { output = (output + chunk).slice(-20_000) })
  const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve))
  process.stdout.write(code === 0 ? `${((Date.now() - begin) / 1000).toFixed(1)} s\n` : 'failed\n')
  if (code !== 0) throw new Refusal(`${output.trimEnd().split('\n').slice(-25).join('\n')}\n\n${fault}`)
}

/** npm ci empties node_modules: two starts at once would pull it from under each other. Who holds the lock touches it each second. */
async function alone (work) {
  mkdirSync(state, { recursive: true })
  const lock = join(state, 'preparing')
  const mine = `${lock}.${process.pid}`
  writeFileSync(mine, String(process.pid))
  for (let told = false; !tryLink(mine, lock); told = true) {
    const holder = Number(readText(lock))
    if (holder > 0 && (!isAlive(holder) || ageOf(lock) > 30_000)) rmSync(lock, { force: true })
    else if (!told) process.stdout.write(`Another command is preparing this clone (process ${holder}); waiting for it\n`)
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  rmSync(mine)
  const touch = setInterval(() => utimesSync(lock, new Date(), new Date()), 1000)
  try {
    await work()
  } finally {
    clearInterval(touch)
    rmSync(lock, { force: true })
  }
}

/** The link appears with its content, or not at all. */
function tryLink (from, to) {
  try {
    linkSync(from, to)
    utimesSync(to, new Date(), new Date())
    return true
  } catch (error) {
    if (error.code === 'EEXIST') return false
    throw error
  }
}

function ageOf (file) {
  return Date.now() - (statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now())
}

function isAlive (pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

function readText (file) {
  return existsSync(file) ? readFileSync(file, 'utf8') : ''
}

try {
  checkNode()
  await alone(async () => {
    await install()
    await build()
  })
} catch (error) {
  process.stderr.write(`\n${error instanceof Refusal || error.code ? error.message : error.stack}\n`)
  process.exitCode = 1
}
