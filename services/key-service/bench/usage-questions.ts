import type { House } from './house.ts'
import type { Operation } from './measure.ts'

/** A project with usage, and keys of it: one that is used all the time, and one as most are. */
export interface Subject { projectId: string, hotKey: string, quietKey: string }

const dayMs = 86_400_000

/** `ofAllKeys`: adds up what all keys of a project have done, so it takes longer, and may want a partition as a whole. */
export interface Question extends Operation { ofAllKeys?: boolean }

/** What the dashboard asks, one call each. */
export function usageQuestions ({ call }: Pick<House, 'call'>, { projectId, hotKey, quietKey }: Subject): Question[] {
  const project = `/v1/projects/${projectId}`
  const ask = (name: string, path: string, ofAllKeys = false): Question => ({ name, call: async () => await call('GET', path), ofAllKeys })
  const since = (days: number): string => `from=${encodeURIComponent(new Date(Date.now() - days * dayMs).toISOString())}`
  const ofKey = (name: string, keyId: string): Question[] => [
    ask(`${name}, minutes of an hour`, `${project}/keys/${keyId}/usage?interval=minute`),
    ask(`${name}, minutes of a day`, `${project}/keys/${keyId}/usage?interval=minute&${since(0.999)}&limit=1500`),
    ask(`${name}, hours of a day`, `${project}/keys/${keyId}/usage`),
    ask(`${name}, hours of a week`, `${project}/keys/${keyId}/usage?${since(7)}`),
    ask(`${name}, days of a year`, `${project}/keys/${keyId}/usage?interval=day&${since(364)}`),
    ask(`${name}, callers`, `${project}/keys/${keyId}/callers`),
    ask(`${name}, log page`, `${project}/keys/${keyId}/log`),
    ask(`${name}, itself with requests24h`, `${project}/keys/${keyId}`)
  ]
  return [
    ask('project, minutes of an hour', `${project}/usage?interval=minute`),
    ask('project, minutes of a day', `${project}/usage?interval=minute&${since(0.999)}&limit=1500`),
    ask('project, hours of a day', `${project}/usage`),
    ask('project, hours of a week', `${project}/usage?${since(7)}`),
    ask('project, days of a year', `${project}/usage?interval=day&${since(364)}`),
    ask('project by scope, a day', `${project}/usage?groupBy=scope`),
    ask('project by operation, a day', `${project}/usage?groupBy=operation`),
    ask('project by operation, a year', `${project}/usage?groupBy=operation&interval=day&${since(364)}&limit=1500`),
    ask('project by key, a day, first page', `${project}/usage?groupBy=key`),
    ask('top keys of 24 hours', `${project}/usage/keys`, true),
    ask('most limited keys of 24 hours', `${project}/usage/keys?by=limited`, true),
    ask('top keys of 7 days', `${project}/usage/keys?interval=day&${since(6)}`, true),
    ask('top keys of 30 days', `${project}/usage/keys?interval=day`, true),
    ...ofKey('hot key', hotKey),
    ...ofKey('quiet key', quietKey),
    ask('page of 100 keys with requests24h', `${project}/keys?limit=100`),
    ask('attention, counts', `${project}/keys/attention`),
    ask('attention, unused', `${project}/keys?attention=unused&limit=100`),
    ask('attention, at its limit', `${project}/keys?attention=at-limit&limit=100`),
    ask('log page of the project', `${project}/log`),
    ask('log page of the project, refused', `${project}/log?outcome=refused`)
  ]
}

/** What is downloaded. Larger ones are measured by their first rows; small enough ones say how many they are. */
export function usageExports ({ projectId, hotKey }: Subject): Array<{ name: string, path: string }> {
  const project = `/v1/projects/${projectId}`
  const year = `interval=day&from=${encodeURIComponent(new Date(Date.now() - 364 * dayMs).toISOString())}`
  return [
    { name: 'project, a year by operation', path: `${project}/usage/export?${year}&groupBy=operation&format=ndjson` },
    { name: 'project, a day by key', path: `${project}/usage/export?groupBy=key&format=ndjson` },
    { name: 'project, a year by key', path: `${project}/usage/export?${year}&groupBy=key&format=ndjson` },
    { name: 'project, a year by key, CSV', path: `${project}/usage/export?${year}&groupBy=key&format=csv` },
    { name: 'hot key, a year by operation', path: `${project}/keys/${hotKey}/usage/export?${year}&groupBy=operation&format=csv` },
    { name: 'log of the project', path: `${project}/log/export?format=ndjson` }
  ]
}
