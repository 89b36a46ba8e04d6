import type { TestApp } from './helper.ts'

/** Every route of the running app, from its own router: `METHOD /path`. */
export function routesOf ({ app }: TestApp): string[] {
  const found: string[] = []
  const parents: string[] = []
  for (const line of app.printRoutes({ commonPrefix: false }).split('\n')) {
    const [, indent, path, methods] = /^([│ ]*)[├└]── (\S+) \(([A-Z, ]+)\)$/.exec(line) ?? []
    if (indent === undefined || path === undefined || methods === undefined) continue
    const depth = indent.length / 4
    parents[depth] = (depth === 0 ? '' : parents[depth - 1] ?? '') + path
    for (const method of methods.split(', ')) found.push(`${method} ${parents[depth]}`)
  }
  return found.filter(route => route.includes(' /v1/'))
}
