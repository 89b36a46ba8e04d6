import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parse } from 'yaml'
import { buildUpstream } from '../src/index.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

interface Mount { source: string, target: string }
interface Container {
  image: string
  build?: { args: { SERVICE: string } }
  environment?: Record<string, string>
  secrets?: string[]
  configs?: Mount[]
  networks: string[]
  ports?: string[]
  healthcheck: { test: string[] }
  depends_on?: Record<string, { condition: string }>
  tmpfs: string[]
}

const compose = parse(read('docker-compose.yml'), { merge: true }) as {
  version?: string
  services: Record<string, Container>
  networks: Record<string, { internal?: boolean }>
  secrets: Record<string, { file: string }>
  configs: Record<string, { file: string }>
}
const containers = Object.entries(compose.services)
const namesWhere = (test: (container: Container) => boolean): string[] => containers.filter(([, c]) => test(c)).map(([name]) => name).sort()

async function run (script: string, ...args: string[]): Promise<{ code: number, stdout: string, stderr: string }> {
  return await new Promise(resolve => {
    execFile(process.execPath, [join(root, script), ...args], { cwd: root }, (error, stdout, stderr) => {
      resolve({ code: Number(error?.code ?? 0), stdout, stderr })
    })
  })
}

t.test('compose has the parts of the house', t => {
  t.equal(compose.version, undefined)
  t.same(Object.keys(compose.services).sort(), ['gateway-1', 'gateway-2', 'key-service', 'postgres', 'redis', 'upstream'])
  for (const [name, { image, build }] of containers) {
    if (build === undefined) t.match(image, /^[\w/]+:\d+\.\d+\.?\d*-\w+$/, `${name} has a pinned image`)
    else t.ok(existsSync(join(root, build.args.SERVICE, 'src/server.ts')), `${name} is built from a folder that has a server`)
  }
  t.end()
})

t.test('every container is locked down, checked, and ends in order', t => {
  for (const [name, container] of containers) {
    t.match(container, {
      init: true,
      read_only: true,
      cap_drop: ['ALL'],
      security_opt: ['no-new-privileges:true'],
      restart: 'unless-stopped',
      stop_grace_period: /^\d+s$/,
      deploy: { resources: { limits: { cpus: String, memory: String } } },
      healthcheck: { interval: /^\d+s$/, timeout: /^\d+s$/, retries: Number, start_period: /^\d+s$/ }
    }, name)
    t.ok(container.tmpfs.includes('/tmp'), `${name} may write to /tmp`)
    t.equal(container.healthcheck.test[0], 'CMD', `${name} needs no shell for its check`)
    t.notOk('container_name' in container, `${name} can be scaled`)
    for (const [other, { condition }] of Object.entries(container.depends_on ?? {})) {
      t.ok(other in compose.services)
      t.equal(condition, 'service_healthy', `${name} waits for ${other} to be healthy`)
    }
  }
  t.end()
})

t.test('only what callers need is published, on this machine alone', t => {
  t.same(namesWhere(c => c.ports !== undefined), ['gateway-1', 'gateway-2', 'key-service'])
  for (const port of containers.flatMap(([, c]) => c.ports ?? [])) t.match(port, /^127\.0\.0\.1:\$\{\w+:-\d+\}:8080$/)
  t.same(Object.keys(compose.networks), ['edge', 'data'])
  t.equal(compose.networks['data']?.internal, true)
  t.same(namesWhere(c => c.networks.includes('data')), ['gateway-1', 'gateway-2', 'key-service', 'postgres', 'redis'])
  t.same(namesWhere(c => !c.networks.includes('edge')), ['postgres', 'redis'])
  t.end()
})

t.test('no secret stands in the file, and each container gets its own only', t => {
  for (const [name, { environment = {}, secrets = [], healthcheck }] of containers) {
    const files = Object.values(environment).filter(value => value.startsWith('/run/secrets/')).map(value => value.slice('/run/secrets/'.length))
    t.same(secrets.filter(secret => !files.includes(secret)), name === 'redis' ? ['redis.acl'] : [], `${name} uses what it gets`)
    t.same(files.filter(file => !secrets.includes(file)), [], `${name} gets what it uses`)
    for (const [variable, value] of Object.entries(environment)) {
      if (/PASS|TOKEN|SECRET|PEPPER|ENCRYPTION|_URL_FILE$/.test(variable)) t.match(value, /^\/run\/secrets\//, `${name}: ${variable}`)
      t.notMatch(value, /:\/\/[^/]*@/, `${name}: ${variable} holds no credentials`)
    }
    t.notMatch(healthcheck.test.join(' '), /secret|token/i)
  }
  t.same(namesWhere(c => c.secrets?.includes('pepper') ?? false), ['key-service'])
  t.same(namesWhere(c => c.secrets?.includes('encryption-key') ?? false), ['key-service'])
  t.same(namesWhere(c => c.secrets?.includes('database-url') ?? false), ['key-service'])
  for (const { file } of Object.values(compose.secrets)) t.match(file, /^\.keygate\/docker\//)
  for (const list of ['.gitignore', '.dockerignore']) t.match(read(list), /^\.keygate\/?$/m, `${list} keeps the secrets out`)
  t.end()
})

t.test('the services know the variables that they are given', t => {
  for (const name of ['gateway-1', 'key-service']) {
    const container = compose.services[name]
    const config = read(`${container?.build?.args.SERVICE}/src/config.ts`)
    for (const variable of Object.keys(container?.environment ?? {})) {
      const known = config.includes(`${variable}:`) || config.includes(`${variable.replace(/_FILE$/, '')}:`)
      t.ok(known, `${name}: ${variable}`)
    }
  }
  t.end()
})

t.test('the catalogue in the containers is that of the local run at other addresses, and finds its document', t => {
  const api = (path: string): Record<string, string> => parse(read(path)).apis[0]
  t.same({ ...api('infra/docker/apis.yaml'), upstream: 0, publicUrl: 0 }, { ...api('infra/local/apis.yaml'), upstream: 0, publicUrl: 0 })
  t.equal(api('infra/docker/apis.yaml')['upstream'], 'http://upstream:4000/app/api/v1')
  for (const name of ['gateway-1', 'key-service']) {
    const { environment, configs } = compose.services[name] as Container
    const target = (source: string): string | undefined => configs?.find(mount => mount.source === source)?.target
    t.equal(target('apis'), environment?.['KEYGATE_APIS'])
    t.equal(target('forms-document'), posix.join(dirname(target('apis') ?? ''), api('infra/docker/apis.yaml')['openapi'] ?? ''))
  }
  for (const { file } of Object.values(compose.configs)) t.ok(existsSync(join(root, file)), file)
  t.end()
})

t.test('make-secrets writes what compose mounts, once, into a closed folder', async t => {
  const folder = join(t.testdir(), 'docker')
  t.equal((await run('infra/docker/make-secrets.js', folder)).code, 0)
  const value = (name: string): string => readFileSync(join(folder, name), 'utf8')
  const mounted = Object.values(compose.secrets).map(({ file }) => posix.basename(file))
  t.same(readdirSync(folder).sort(), [...mounted, 'operator-token'].sort())
  t.equal(statSync(folder).mode & 0o777, 0o700)
  for (const name of mounted) t.equal(statSync(join(folder, name)).mode & 0o777, 0o644, `${name} can be read by the container's user`)
  t.equal(statSync(join(folder, 'operator-token')).mode & 0o777, 0o600)

  t.equal(new URL(value('database-url')).password, value('postgres-password'))
  t.match(value('redis.acl'), createHash('sha256').update(new URL(value('redis-url')).password).digest('hex'))
  const tokens = JSON.parse(value('service-tokens.json')) as Array<{ name: string, token: string, permissions: string[] }>
  t.match(tokens, [{ name: 'gateway', token: value('gateway-token'), permissions: ['keys:verify'] }, { name: 'operator', token: value('operator-token') }])

  const before = readdirSync(folder).map(value)
  const again = await run('infra/docker/make-secrets.js', folder)
  t.match(again.stdout, /^Kept the secrets/)
  t.same(readdirSync(folder).map(value), before)
  for (const secret of before) t.notOk(again.stdout.includes(secret))
})

t.test('the image is made in stages, runs nobody else\'s scripts and nothing as root', t => {
  const lines = read('infra/docker/Dockerfile').replace(/\\\n\s*/g, '').split('\n').filter(line => /^[A-Z]+ /.test(line))
  const of = (instruction: string): string[] => lines.filter(line => line.startsWith(`${instruction} `)).map(line => line.slice(instruction.length + 1))
  t.match(of('ARG')[0], /^NODE_IMAGE=node:\d+\.\d+\.\d+-bookworm-slim$/)
  t.same(of('FROM').map(line => line.split(' AS ')[1]), ['manifests', 'build', 'dependencies', 'runtime'])
  const installs = of('RUN').filter(line => /npm (ci|i|install)\b/.test(line))
  t.equal(installs.length, 2)
  for (const install of installs) t.match(install, 'npm ci --ignore-scripts')
  t.match(installs[1], '--omit=dev')

  const runtime = lines.slice(lines.findIndex(line => line.endsWith(' AS runtime')))
  t.ok(runtime.includes('ARG SERVICE'))
  t.match(runtime.filter(line => line.startsWith('USER ')), [/^USER [1-9]\d*:[1-9]\d*$/])
  t.match(runtime.at(-1), /^CMD \["node", .*"dist\/server\.js"\]$/)
  t.same(runtime.filter(line => line.startsWith('COPY ') && !line.includes('--from=')), ['COPY infra/docker/healthcheck.js /app/healthcheck.js'], 'nothing comes into the image past the build')

  const locked = Object.values((JSON.parse(read('package-lock.json')) as { packages: Record<string, { link?: boolean, resolved?: string }> }).packages)
  for (const { resolved: folder } of locked.filter(({ link }) => link === true)) {
    t.ok(of('COPY').includes(`${folder}/package.json ${folder}/`), `the lockfile's workspace ${folder} is there at the install`)
  }
  t.end()
})

t.test('the healthcheck tells up from down', async t => {
  const app = buildUpstream()
  const origin = await app.listen({ port: 0 })
  t.equal((await run('infra/docker/healthcheck.js', `${origin}/livez`)).code, 0)
  t.match(await run('infra/docker/healthcheck.js', `${origin}/nothing`), { code: 1, stderr: /answered 404/ })
  await app.close()
  t.match(await run('infra/docker/healthcheck.js', `${origin}/livez`), { code: 1, stderr: /ECONNREFUSED/ })
})
