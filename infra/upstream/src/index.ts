export { buildUpstream, prefix, type UpstreamOptions } from './app.ts'
