import { execFile, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { programEnvironment } from '../src/find-program.ts'
import { freePort } from '../src/free-port.ts'
import { findNginx, startNginx } from '../src/index.ts'
import { repoRoot } from '../src/root.ts'
import { keptAlive, send } from './behind-nginx.ts'

const execute = promisify(execFile)
const missing = spawnSync('envsubst', ['--version']).status === 0 ? false : 'this machine has no envsubst (Debian: gettext-base)'
const [settings = '', commands = ''] = [...readFileSync(join(repoRoot, 'infra/nginx/README.md'), 'utf8').matchAll(/```sh\n([^]*?)```/g)].map(([, text = '']) => text)

t.teardown(() => { keptAlive.destroy() })

for (const [files, answer] of [['gateways balancer', 502], ['gateways forward-auth', 503]] as const) {
  t.test(`the README's commands, to the letter, put ${files} into a running nginx`, { skip: missing }, async t => {
    const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-readme-'))
    t.teardown(() => { rmSync(dir, { recursive: true }) })
    const [conf, bin] = [join(dir, 'conf.d'), join(dir, 'bin')]
    mkdirSync(conf)
    mkdirSync(bin)
    const server = await findNginx()
    const nginx = await startNginx({ server, config: port => `server { listen 127.0.0.1:${port}; return 204; }\ninclude ${conf}/*.conf;` })
    t.teardown(nginx.stop)
    // An installed nginx knows where it lives; this one is told.
    writeFileSync(join(bin, 'nginx'), `#!/bin/sh\nexec '${server.command}' -p '${nginx.dir}' -c nginx.conf -e stderr "$@"\n`, { mode: 0o755 })

    const [listen, dead] = [await freePort(), `127.0.0.1:${await freePort()}`]
    const values: Record<string, string> = { KEYGATE_LISTEN: `127.0.0.1:${listen}`, conf }
    const own = settings.replaceAll(/(\w+)=(\S+)/g, (_, name: string) => `${name}='${values[name] ?? dead}'`)
    t.match(own, new RegExp(`KEYGATE_LISTEN='[^]*KEYGATE_GATEWAY_3='[^]*KEYGATE_API='[^]*\nconf='${conf}'`), 'the settings alone are this test\'s')
    t.match(commands, `# or: ${files === 'gateways balancer' ? 'gateways forward-auth' : files}\n`)
    const { stderr } = await execute('sh', ['-e', '-c', own + commands.replace('in gateways balancer;', `in ${files};`)], { cwd: repoRoot, env: { ...programEnvironment(server.libraries), PATH: `${bin}${delimiter}${process.env['PATH'] ?? ''}` } })
    t.match(stderr, /test is successful/)
    t.match(stderr, /signal process started/, 'and the running one is told to read it')
    // One that is a single process, as those of the tests are, answers on no new port before it is started again.
    await nginx.stop()
    const next = await startNginx({ server, config: () => `include ${conf}/*.conf;` })
    t.teardown(next.stop)
    t.equal((await send(`http://127.0.0.1:${listen}`, {})).status, answer, 'and no gateway is there')
  })
}
