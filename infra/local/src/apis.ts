import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { repoRoot } from './root.ts'

const room = join(repoRoot, 'infra/local')

/** The text of the checked-in catalogue, which is also the form that `resolveApis` takes. */
export function localApis (): string {
  return readFileSync(join(room, 'apis.yaml'), 'utf8')
}

/** Puts the real addresses, and absolute paths of the documents, in the place of the checked-in ones. */
export function resolveApis (text: string, urls: { gateway: string, upstream: string }): string {
  return text
    .replaceAll('http://127.0.0.1:8080', urls.gateway)
    .replaceAll('http://127.0.0.1:4000', urls.upstream)
    .replaceAll(/^(\s*openapi:\s*)(\.{1,2}\/\S+)/gm, (_, name: string, path: string) => name + JSON.stringify(resolve(room, path)))
}
