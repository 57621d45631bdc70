import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  server: { host: "127.0.0.1" },
  build: { outDir: "build/web", target: "es2022" },
});
