// Reads an AsyncAPI document with AsyncAPI's own parser and fails on anything that it calls an error or a warning.
import { readFileSync } from 'node:fs';
import parsing from '@asyncapi/parser';

const { document, diagnostics } = await new parsing.Parser().parse(readFileSync(process.argv[2], 'utf8'));

// 0 is an error, 1 a warning; what is above is advice, such as to use a newer version of AsyncAPI.
const faults = diagnostics.filter((d) => d.severity <= 1);
for (const d of diagnostics) console.log(`${['error', 'warning', 'information', 'hint'][d.severity]}: ${d.path.join('.')}: ${d.message}`);
if (faults.length > 0 || !document) process.exit(1);

const channels = document.channels().all();
const messages = document.messages().all();
console.log(`AsyncAPI ${document.version()}: ${channels.length} channels, ${messages.length} messages`);
for (const channel of channels) console.log(`  ${channel.address()}: ${channel.messages().all().map((m) => m.name()).join(', ')}`);
// A document in which the parser found nothing would be in order as well.
if (channels.length < 7 || messages.length < 6) process.exit(1);
