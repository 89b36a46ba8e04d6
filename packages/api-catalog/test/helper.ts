import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { CatalogueError, loadCatalogue, type Api, type LoadOptions } from '../src/index.ts'

interface Test {
  testdir: (files: Record<string, string>) => string
}

/** The least `apis.yaml` that loads. */
export const api = { name: 'forms', prefix: '/v1', upstream: 'http://127.0.0.1:4000', openapi: './openapi.yaml' }

/** The least document that loads: one operation, open to keys by Basic. */
export const document = {
  openapi: '3.0.3',
  info: { title: 'Forms', version: '1.0.0' },
  security: [{ basic: [] }] as unknown,
  paths: { '/forms/{formId}': { get: operation({ operationId: 'getForm', tags: ['forms'], parameters: [parameter('formId')] }) } } as Record<string, unknown>,
  components: {
    securitySchemes: {
      basic: { type: 'http', scheme: 'basic' },
      header: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
      bearer: { type: 'http', scheme: 'bearer' }
    } as Record<string, unknown>
  }
}

export function operation (fields: object = {}): object {
  return { responses: { 200: { description: 'OK' } }, ...fields }
}

export function parameter (name: string): object {
  return { name, in: 'path', required: true, schema: { type: 'string' } }
}

export function fixture (name: string): string {
  return fileURLToPath(new URL(`fixtures/${name}`, import.meta.url))
}

/** Writes a catalogue of one API, or of those given, with documents, and returns the path of its `apis.yaml`. */
export function write (t: Test, apis: object | object[] | string, documents: Record<string, object | string>): string {
  const text = (value: object | string) => typeof value === 'string' ? value : stringify(value)
  const files = Object.fromEntries(Object.entries(documents).map(([name, value]) => [name, text(value)]))
  return join(t.testdir({ 'apis.yaml': text(typeof apis === 'string' ? apis : { apis: [apis].flat() }), ...files }), 'apis.yaml')
}

/** Loads a catalogue of one API and one document, each the least one with these changes. */
export async function load (t: Test, changes: object, documentChanges: object = {}): Promise<Api> {
  const catalogue = await loadCatalogue(write(t, { ...api, ...changes }, { 'openapi.yaml': { ...document, ...documentChanges } }))
  return catalogue.apis[0] as Api
}

/** The faults of a catalogue, with its folder taken out of the text; empty when it loads. */
export async function faultsOf (file: string, options?: LoadOptions): Promise<string[]> {
  try {
    await loadCatalogue(file, options)
    return []
  } catch (error) {
    if (!(error instanceof CatalogueError)) throw error
    return error.faults.map(fault => fault.replaceAll(join(file, '..') + '/', ''))
  }
}
