// A process that starts a server and waits to be killed: the server must not outlive it.
import { startPostgres, startRedis } from '../src/index.ts'

const [kind, dir = ''] = process.argv.slice(2)
const server = kind === 'postgres' ? await startPostgres(dir) : await startRedis({ dir })
process.send?.({ pid: server.pid, port: server.port })
