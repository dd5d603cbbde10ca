import js from "@eslint/js";
import globals from "globals";

const MARKUP = "Strings reach the page as text nodes and attributes alone: use el() of dom.js.";
const markup = ["innerHTML", "outerHTML", "insertAdjacentHTML", "write", "writeln"]
  .map((property) => ({ property, message: MARKUP }));

export default [
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2022, sourceType: "module", globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "array-callback-return": "error",
      "arrow-body-style": "error",
      "class-methods-use-this": ["error", { exceptMethods: ["save_changes"] }],
      "consistent-return": "error",
      "curly": ["error", "multi-line"],
      "default-case-last": "error",
      "dot-notation": "error",
      "eqeqeq": "error",
      "max-len": ["error", { code: 110, ignoreStrings: true, ignorePattern: "^(import|/\\*\\* @import)" }],
      "no-console": "error",
      "no-else-return": "error",
      "no-eval": "error",
      "no-implicit-globals": "error",
      "no-implied-eval": "error",
      "no-lonely-if": "error",
      "no-new-func": "error",
      "no-param-reassign": "error",
      "no-restricted-properties": ["error", ...markup],
      "no-shadow": "error",
      "no-throw-literal": "error",
      "no-unneeded-ternary": "error",
      "no-unused-expressions": "error",
      "no-use-before-define": ["error", { functions: false, classes: false, variables: false }],
      "no-useless-return": "error",
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-arrow-callback": "error",
      "prefer-const": "error",
      "prefer-template": "error",
      "require-atomic-updates": "off",
      "strict": ["error", "never"],
      "yoda": "error",
    },
  },
];
