import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { findNginx, startNginx } from '../src/index.ts'
import { isRunning, until } from './helper.ts'

const hello = (port: number): string => `server { listen 127.0.0.1:${port}; location / { return 200 hello; } location /missing { root nowhere; error_log stderr error; } }`

t.test('starts without root, serves, stops, and takes its folder with it', async t => {
  const nginx = await startNginx({ config: hello })
  t.teardown(nginx.stop)
  t.equal(await (await fetch(nginx.url)).text(), 'hello')
  t.equal((await fetch(`${nginx.url}/missing`)).status, 404)
  await until('its log can be read', () => nginx.log().includes('nowhere/missing')) // it comes through a pipe
  t.equal(isRunning(nginx.pid), true)
  await nginx.stop()
  t.equal(isRunning(nginx.pid), false)
  t.equal(existsSync(nginx.dir), false)
})

t.test('a fault of the configuration, or a port that is taken, is told in a sentence', async t => {
  await t.rejects(startNginx({ config: () => 'no_such_directive on;' }), { name: 'LocalError', message: /unknown directive "no_such_directive"/ })
  const other = createServer()
  await new Promise<void>(resolve => { other.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => { other.close() })
  const { port } = other.address() as AddressInfo
  await t.rejects(startNginx({ config: hello, port }), { name: 'LocalError', message: `Port ${port} for nginx is taken.` })
})

t.test('found by NGINX, on PATH, or unpacked out of the distribution\'s package; only one that has auth_request will do', async t => {
  const dir = t.testdir({ on: { path: {} } })
  const PATH = join(dir, 'on/path')
  const fake = (file: string, version: string, module = '--with-http_auth_request_module') => writeFileSync(join(dir, file), `#!/bin/sh\necho "nginx version: ${version}\nconfigure arguments: ${module}" >&2\n`, { mode: 0o755 })
  fake('chosen', 'nginx/1.26.0')
  t.strictSame(await findNginx({ env: { PATH, NGINX: join(dir, 'chosen') } }), { command: join(dir, 'chosen'), version: 'nginx/1.26.0' })
  fake('on/path/nginx', 'nginx/1.20.1')
  t.equal((await findNginx({ env: { PATH } })).version, 'nginx/1.20.1')
  for (const [version, module, why] of [['nginx/1.18.0', undefined, /is nginx\/1\.18\.0, too old/], ['nginx/1.26.0', '', /without http_auth_request_module/], ['apache', undefined, /does not look like nginx/]] as const) {
    fake('chosen', version, module)
    await t.rejects(findNginx({ env: { PATH, NGINX: join(dir, 'chosen') } }), { name: 'LocalError', message: why })
  }
  if (existsSync('/usr/sbin/nginx')) return
  rmSync(join(dir, 'on/path/nginx'))
  const none = findNginx({ env: { PATH }, cacheDir: join(dir, 'cache') }) // without apt-get on PATH
  await t.rejects(none, { name: 'LocalError', message: /not on PATH[^]*the distribution's packages[^]*apt-get install -y nginx/ })
})
