import { isIPv6 } from 'node:net'
import type { Config } from '../config.ts'

/** Where people reach this service: as configured, else the address that it listens on. Never as a request's Host says, which its sender chose. */
export function publicUrlOf ({ publicUrl, host, port }: Pick<Config, 'publicUrl' | 'host' | 'port'>): string {
  if (publicUrl !== undefined) return publicUrl
  const name = ['0.0.0.0', '::'].includes(host) ? 'localhost' : host
  return `http://${isIPv6(name) ? `[${name}]` : name}:${port}`
}
