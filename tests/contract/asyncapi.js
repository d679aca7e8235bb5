// Prints the errors of an AsyncAPI document, examples included: asyncapi.js FILE
const { readFileSync } = require('fs');
const { Parser } = require('@asyncapi/parser');

async function main([file]) {
  const { document, diagnostics } = await new Parser().parse(readFileSync(file, 'utf8'), { source: file });
  const wrong = diagnostics.filter((one) => one.severity <= 1); // errors and warnings
  for (const one of wrong) console.error(`${file}: ${one.path.join('.')}: ${one.message} (${one.code})`);
  if (!document || wrong.length > 0) process.exit(1);
  console.log(`${file}: AsyncAPI ${document.version()}, ${document.allMessages().length} messages`);
}

main(process.argv.slice(2));
