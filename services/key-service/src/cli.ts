import { auditVerify } from './cli/audit-verify.ts'
import type { Command } from './cli/command.ts'
import { encryptionKeyForget } from './cli/encryption-key-forget.ts'
import { logDrop } from './cli/log-drop.ts'
import { peopleAdd } from './cli/people-add.ts'
import { peopleConfirm } from './cli/people-confirm.ts'
import { peopleLink } from './cli/people-link.ts'
import { runCommandLine } from './cli/run.ts'
import { secretsRewrap } from './cli/secrets-rewrap.ts'
import { tokensCreate } from './cli/tokens-create.ts'
import { usageBalance } from './cli/usage-balance.ts'

/** All that can be done on the host: `node dist/cli.js <command>`, in the environment of the service. */
const commands: Command[] = [
  peopleAdd,
  peopleConfirm,
  peopleLink,
  tokensCreate,
  secretsRewrap,
  encryptionKeyForget,
  auditVerify,
  usageBalance,
  logDrop
]

process.exitCode = await runCommandLine(commands, process.argv.slice(2), { env: process.env, out: process.stdout, err: process.stderr })
