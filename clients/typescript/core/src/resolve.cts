/** The path of a file of an installed package. CommonJS in both builds: Node 20's ES modules cannot look for one. */

function resolve(file: string): string {
  return require.resolve(file);
}

export = resolve;
