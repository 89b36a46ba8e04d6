import { Type, type Static } from 'typebox'
import { Timestamp, ascii, integer, nullable, oneOf, text } from '../schemas.ts'
import { callersOfKey } from './store.ts'

export const Caller = Type.Object({
  address: ascii(100, { description: 'as the trusted hop gives it, or a hash of it' }),
  client: text(100, { description: 'the first product of the User-Agent; empty: none' }),
  secretId: ascii(100, { description: 'the secret that it came with last' }),
  secretState: oneOf(['current', 'retiring', 'ended'], { description: 'of that secret at this moment; `ended`: it works no more' }),
  lastSeen: Timestamp,
  requests24h: integer(0, Number.MAX_SAFE_INTEGER, { description: 'in this hour and the 23 before it, refused ones too' })
})
export type Caller = Static<typeof Caller>

const callers = (description: string) => integer(0, callersOfKey, { description })

export const CallerList = Type.Object({
  data: Type.Array(Caller, { maxItems: callersOfKey, description: 'those who were seen last in 7 days' }),
  rotation: nullable(Type.Object({
    moved: callers('who came with the new secret last'),
    stillOld: callers('who came with the old secret last: when it ends they are refused')
  }, { description: 'while an old secret works; null: none does' }))
}, {
  examples: [{
    data: [
      { address: '192.0.2.7', client: 'curl/8.5.0', secretId: 'sec_0123456789ABCDEFGHIJKL', secretState: 'current', lastSeen: '2026-11-20T11:45:00.000Z', requests24h: 1204 },
      { address: '192.0.2.8', client: '', secretId: 'sec_9fK2mQ4xT7aB1cD3eF5gH6', secretState: 'retiring', lastSeen: '2026-11-20T11:44:19.000Z', requests24h: 12 }
    ],
    rotation: { moved: 1, stillOld: 1 }
  }]
})
export type CallerList = Static<typeof CallerList>
