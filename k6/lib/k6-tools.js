/** @import { Tools } from './types.ts' */
import { check, sleep } from 'k6'
import encoding from 'k6/encoding'
import http from 'k6/http'

/** @type {Tools} */
export const tools = {
  async request (method, url, headers = {}, body) {
    // One name for all URLs: k6 would keep a time series per URL otherwise.
    const response = await http.asyncRequest(method, url, body ?? null, { headers, tags: { name: method } })
    const lowerCase = Object.fromEntries(Object.entries(response.headers).map(([name, value]) => [name.toLowerCase(), value]))
    return { status: response.status, headers: lowerCase, body: String(response.body ?? '') }
  },
  base64: text => encoding.b64encode(text),
  check: (answer, checks) => check(answer, checks),
  sleep
}
