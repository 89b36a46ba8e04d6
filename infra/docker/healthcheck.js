// Asks a URL for a container's healthcheck: 0 when it answers 2xx. The image has no curl, and needs none.
const [url] = process.argv.slice(2)
const patienceMs = 2_000

try {
  const { ok, status } = await fetch(url, { signal: AbortSignal.timeout(patienceMs) })
  if (!ok) process.stderr.write(`${url} answered ${status}\n`)
  process.exitCode = ok ? 0 : 1
} catch (error) {
  process.stderr.write(`${url}: ${error.cause?.code ?? error.message}\n`)
  process.exitCode = 1
}
